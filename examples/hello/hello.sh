#!/bin/sh
# Greets whoever is named, and says who it is itself.
echo "$GREETING, ${*:-nobody}! This is hello $VERSION, run by $(id -un)."
echo "It knows $(cat /usr/share/hello/count) words: $(tr '\n' ' ' < /usr/share/hello/words | sed 's/ $//')."
