"""The chat template of an export: ``sft.data.chat.encoding`` and the framing of training, as Jinja.

Whatever renders it (Transformers, vLLM, llama.cpp) sends the ids that training used. Written
without filters and tests that only Python's Jinja has.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from sft.data.chat.encoding import FORMATS, Format
from sft.data.sets.framing import NOTHING, Framing
from sft.data.tokenizer.sentencepiece import UNKNOWN, Tokenizer

_TEMPLATE = string.Template("""\
{{ bos_token }}
{%- macro text(content) -%}
    {%- if content is string -%}
        {{ content }}
    {%- elif content -%}
        {%- for part in content -%}
            {%- if part['text'] is not string -%}
                {{ raise_exception('only text is read') }}
            {%- endif -%}
            {{ part['text'] }}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set first = namespace(system=$default) -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- if text(messages[0]['content']) | trim -%}
        {%- set first.system = text(messages[0]['content']) -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set turns = messages -%}
{%- endif -%}
$system_turn\
{%- for turn in turns -%}
    {%- set asks = loop.index0 % 2 == 0 -%}
    {%- if turn['role'] not in (['user'] if asks else ['assistant', 'model']) -%}
        {{ raise_exception('user and assistant must take turns, the user first') }}
    {%- endif -%}
    {{ '${start}user\\n' if asks else '${start}model\\n' }}
$system_prefix\
$thought_in_turn\
$prompt\
    {{- '$end\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '${start}model\\n$thought' }}
{%- endif -%}
""")
_SYSTEM_TURN = """\
{%- if first.system -%}
    {{ '${start}system\\n' + (first.system | trim) + '$end\\n' }}
{%- endif -%}
"""
_SYSTEM_PREFIX = """\
    {%- if loop.first and first.system -%}
        {{ first.system + '\\n\\n' }}
    {%- endif -%}
"""
_PROMPT = """\
    {{- text(turn['content']) | trim }}
"""
_FIRST_PROMPT = """\
    {%- if loop.first -%}
        {{ ($first) | trim }}
    {%- else -%}
        {{ text(turn['content']) | trim }}
    {%- endif -%}
"""
_THOUGHT = """\
    {%- if loop.last and not asks -%}
        {{ '$thought' }}
    {%- endif -%}
"""


def jinja(shape: Format, framing: Framing) -> str:
    """The chat template of these turns, with what training put around a conversation."""
    start, end = shape.turn_pieces
    thought = "thought\\n".join(shape.thought) if shape.thought else ""
    content = " + text(turn['content']) + ".join(map(_literal, framing.around))
    parts = {"start": start, "end": end, "thought": thought, "first": content}

    def part(template: str, there: bool = True) -> str:
        return string.Template(template).substitute(parts) if there else ""

    return _TEMPLATE.substitute(
        parts,
        default=_literal(framing.system),
        system_turn=part(_SYSTEM_TURN, shape.system_turn),
        system_prefix=part(_SYSTEM_PREFIX, not shape.system_turn),
        thought_in_turn=part(_THOUGHT, bool(thought)),
        prompt=part(_PROMPT if framing.around == NOTHING else _FIRST_PROMPT),
    )


def plain(tokenizer: Tokenizer) -> str:
    """The chat template of these turns alone, as the models of the tokenizer are published."""
    shapes = FORMATS.values()
    shape = next(one for one in shapes if one.turn_pieces == tokenizer.turn_pieces)
    return jinja(shape, Framing())


def _literal(text: str) -> str:
    """A string of Jinja. What it need not escape stays: some engines know few escapes."""
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return f"'{text}'"


def expressible(framing: Framing, tokenizer: Tokenizer) -> Framing:
    """The framing without texts that name a control piece.

    In training they are text; in the string that a chat template gives, they are control.
    """
    pieces = [
        piece
        for piece, _, kind in tokenizer.pieces()
        if kind == UNKNOWN or tokenizer.has_control(piece)
    ]

    def named(text: str) -> str:
        return next((piece for piece in pieces if piece in text), "")

    system, around, lost = framing.system, framing.around, [*framing.lost]
    if piece := named(system):
        system = ""
        lost.append(
            f"The system instruction of training has the text {piece!r}, which other libraries "
            "read as a control token, so there is no default: give one without it."
        )
    if piece := named("\n".join(around)):
        around = NOTHING
        lost.append(
            f"The template of the training prompts has the text {piece!r}, which other libraries "
            "read as a control token, so none is put around a prompt."
        )
    return Framing(system, around, tuple(lost))


def render(template: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """The text of a chat, as Transformers renders it; ``options`` as ``add_generation_prompt``."""
    import jinja2.sandbox

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    given = {"messages": messages, "bos_token": "<bos>", "raise_exception": refuse}
    return environment.from_string(template).render(given, **options)
