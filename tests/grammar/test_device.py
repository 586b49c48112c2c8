"""Values of `RUN --device`."""

from __future__ import annotations

import pytest

from grammar import Device, DeviceError, ParseError, parse, parse_device


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vendor.com/class", ("vendor.com/class", False)),
        ("vendor.com/class=all,required", ("vendor.com/class=all", True)),
        ("name=vendor.com/class=*,Required=T", ("vendor.com/class=*", True)),
        ("required=true,vendor.com/class=a,required=0", ("vendor.com/class=a", False)),
        ('"name=vendor.com/class=a,b"', ("vendor.com/class=a,b", False)),
        ("name,required", ("name", True)),
        ("required", ("", True)),
    ],
)
def test_forms(text: str, expected: tuple[str, bool]) -> None:
    """The name may stand alone, although it holds an equals sign; `required` is a switch."""
    assert Device(name=expected[0], required=expected[1]) == parse_device(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b", "invalid field 'b' must be a key=value pair"),
        ("name=x,name=y", "device name already set to x"),
        ("x/y,required=maybe", "invalid value for required: maybe"),
        ("x/y,requierd=1", "unexpected key 'requierd' in 'requierd=1' (did you mean required?)"),
        ('"x', 'failed to parse csv devices: extraneous or missing " in quoted-field'),
    ],
)
def test_errors(text: str, message: str) -> None:
    """What means nothing is refused in the reference's words, with the next action, at the flag."""
    with pytest.raises(DeviceError) as caught:
        parse_device(text)
    assert message == caught.value.message
    assert caught.value.hint
    with pytest.raises(ParseError) as located:
        parse(f"FROM a\nRUN --device={text} true\n".encode().replace(b'"', b'\\"'))
    span = located.value.diagnostics[0].span
    assert span is not None
    assert (2, 5) == (span.start.line, span.start.column)
