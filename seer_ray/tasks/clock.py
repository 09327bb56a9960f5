"""Chat templates that write the date, with a clock that stands still."""

from __future__ import annotations

import json
from datetime import datetime

_DIRECTIVES = (*"aAbBcCdDeFfGgHhIjklMmnPprRSsTtUuVWwXxYyZz", *(f"-{letter}" for letter in "dHIjklMmSUWy"))
_PERCENT = "\x00"


def stopped(template: str, clock: datetime) -> str:
    """A chat template in which ``strftime_now`` reads this clock, whatever the format that it is given.

    transformers passes no functions to templates, so the function is written in front of it, as a macro.
    """
    if "strftime_now" not in template:
        return template
    pairs = [("%%", _PERCENT), *((f"%{d}", clock.strftime(f"%{d}")) for d in _DIRECTIVES), (_PERCENT, "%")]
    filters = "".join(f" | replace({json.dumps(old)}, {json.dumps(new)})" for old, new in pairs)
    # The empty expression keeps what follows as it is: a block would take a line break away.
    macro = f"{{%- macro strftime_now(format) -%}}{{{{ format{filters} }}}}{{%- endmacro %}}"
    return macro + "{{ '' }}" + template
