"""The value of `RUN --device`: a device of the host by its CDI name, and whether the step is to fail without it."""

from __future__ import annotations

from grammar.csvline import QUOTING, fields
from grammar.errors import DeviceError
from grammar.record import Record
from grammar.text import TRUE, WORDS, did_you_mean

KEYS = ("name", "required")


class Device(Record):
    """One device of a RUN; `name` is VENDOR/CLASS[=NAME], NAME one device, a class of them or `*`."""

    name: str
    required: bool


def parse_device(text: str) -> Device:
    """Return the device that the value of `--device` describes; DeviceError. No variables are replaced in it."""
    try:
        listed = fields(text)
    except ValueError as error:
        raise DeviceError(f"failed to parse csv devices: {error}", hint=QUOTING) from None
    name, required = "", False
    for field in listed:
        written, equals, value = field.partition("=")
        key = written.lower()
        if key == "required":
            if equals and value not in WORDS:
                raise DeviceError(f"invalid value for {key}: {value}", hint="write true or false")
            required = not equals or value in TRUE
        elif key == "name" and equals:
            if name:
                raise DeviceError(f"device name already set to {name}", hint="write a --device for each")
            name = value
        elif not name:
            name = field
        elif equals:
            message = f"unexpected key '{key}' in '{field}'{did_you_mean(key, KEYS)}"
            raise DeviceError(message, hint=f"the keys are {', '.join(KEYS)}")
        else:
            raise DeviceError(f"invalid field '{field}' must be a key=value pair", hint="write a --device for each")
    return Device(name=name, required=required)
