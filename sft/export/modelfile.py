"""Ollama's ``Modelfile``: the prompts of training as a Go template, and how answers are drawn.

Ollama's parser drops characters that Go does not call printable, such as an ideographic space, and
ends a value where ``\"""`` ends a line. So texts of the user go into the template as strings of Go,
and into ``SYSTEM`` only where it keeps them.
"""

import string

from sft.config.text import strings
from sft.data.sets.framing import NOTHING, Framing
from sft.export.tuned import Tuned

_TURNS = string.Template("""\
{{- $$system := .System }}$opening$system_turn\
{{ range $each.Messages }}{{ if eq .Role "user" }}${start}user
$first_system$prompt$end
${start}model
$thought{{ else if eq .Role "assistant" }}{{ .Content }}$end
{{ end }}{{ end }}""")
_SYSTEM_TURN = "{{ if $$system }}${start}system\n{{ $$system }}$end\n{{ end }}"
_FIRST_SYSTEM = '{{ if $$system }}{{ $$system }}\n\n{{ $$system = "" }}{{ end }}'
_CONTEXT = 4096  # tokens that Ollama gives a conversation if it is not told


def text(tuned: Tuned, model: str) -> str:
    """The whole file.

    Args:
      model: name of the GGUF file beside it.
    """
    config, system = tuned.config, tuned.framing.system
    if tuned.format.system_turn:
        system = system.strip()  # as training does with a turn of its own
    is_kept = _is_kept(system)
    lines = [
        "# ollama create NAME -f Modelfile",
        f"FROM ./{model}",
        *([f'SYSTEM """{system}"""'] if system and is_kept else []),
        f'TEMPLATE """{_template(tuned, "" if is_kept else system)}"""',
        f"PARAMETER stop {tuned.format.turn_pieces[1]}",
        *map(_stop, strings(config.eval.stop)),
        f"PARAMETER temperature {config.eval.temperature}",
    ]
    if config.eval.temperature:
        lines += [f"PARAMETER top_k {config.eval.top_k}", f"PARAMETER top_p {config.eval.top_p}"]
    longest = max(config.data.max_length, config.data.eval_max_length) + config.eval.max_new_tokens
    if longest > _CONTEXT:
        lines.append(f"PARAMETER num_ctx {longest}")
    lines += [
        "# Ollama's own, 1.1, makes it avoid what stands in the prompt, which tuned answers often "
        "repeat.",
        "PARAMETER repeat_penalty 1.0",
    ]
    return "\n".join(lines) + "\n"


def _stop(text: str) -> str:
    if _is_kept(text):
        return f'PARAMETER stop """{text}"""'
    return f"# Give with each request, as it cannot be written here: stop = {_quoted(text)}"


def _template(tuned: Tuned, system: str) -> str:
    """The Go template; ``system`` is the default instruction, if ``SYSTEM`` does not have it."""
    shape, framing = tuned.format, tuned.framing
    start, end = shape.turn_pieces
    pieces = {"start": start, "end": end}

    def part(template: str, there: bool) -> str:
        return string.Template(template).substitute(pieces) if there else ""

    opening, thought, each = "", "", ""
    if system:
        opening = _actions("if not $system", f"$system = {_quoted(system)}", "end")
    if framing.around != NOTHING:
        opening += _actions("$first := true")
    if shape.thought:
        each = "$i, $_ := "
        last = _actions("if eq (len (slice $.Messages $i)) 1")
        thought = last + "thought\n".join(shape.thought) + _actions("end")
    return _TURNS.substitute(
        pieces,
        opening=opening,
        prompt=_prompt(framing),
        system_turn=part(_SYSTEM_TURN, shape.system_turn),
        first_system=part(_FIRST_SYSTEM, not shape.system_turn),
        thought=thought,
        each=each,
    )


def _prompt(framing: Framing) -> str:
    content = _actions(".Content")
    if framing.around == NOTHING:
        return content
    # Go's templates cannot strip. The prompt of training is stripped with the template around it.
    before, *between, after = framing.around
    literals = [before.lstrip(), *between, after.rstrip()]
    inside = content.join(_actions(_quoted(one)) if one else "" for one in literals)
    first = _actions("if $first") + inside + _actions("$first = false")
    return first + _actions("else") + content + _actions("end")


def _actions(*actions: str) -> str:
    return "".join(f"{{{{ {action} }}}}" for action in actions)


def _is_kept(text: str) -> bool:
    """Whether Ollama's parser gives ``\"""text\"""`` back unchanged."""
    return '"""' not in text and all(c in "\t\n" or c.isprintable() for c in text)


def _quoted(text: str) -> str:
    """A string of Go on one line, of printable characters alone."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == "\n":
        return "\\n"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
