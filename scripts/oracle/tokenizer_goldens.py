"""Writes the golden files of the tokenizer and chat tests from the published tokenizer.

    python scripts/oracle/tokenizer_goldens.py DIR tests/golden

DIR holds ``tokenizer.json`` and ``tokenizer_config.json`` (with ``chat_template``) of a Gemma 3
instruction model. Needs ``tokenizers``, ``jinja2`` and ``babel``. The output is deterministic:

    tokenizer_gemma3.jsonl.gz       {"text", "ids"}: strings without control tokens, no <bos>
    tokenizer_literals_gemma3.jsonl.gz  the same with control tokens written out in the text
    tokenizer_chat_gemma3.jsonl.gz  {"system", "turns", "ids", "prompt_ids"}: rendered by the chat
                                    template, whole and up to the last model turn
    tokenizer_gemma3.jinja          the chat template itself
"""

import argparse
import gzip
import json
import pathlib
import random
from collections.abc import Iterable, Iterator

import babel
import babel.localedata
import jinja2.sandbox
import tokenizers

CODE = [
    "def f(x):\n    if x:\n\n        return [\n            x ** 2,  # square\n        ]\n\n\n\n",
    "for (int i = 0;  i < n;\t++i) {\n\t\tsum += a[i];\n\t}\n",
    "\t\tkey:\t\tvalue\n\t\t\t-\titem\n",
    "<table>\n  <tr><td>1</td> <td> 2 </td></tr>\n</table>\r\n<div class='x'><b>y</b></div>",
    "SELECT  *\nFROM   t\nWHERE  a >= 3.14e-10   -- end",
    '{"a": [1, 2,   3], "b": {"c": null}}',
    "x" + " " * 40 + "y" + "\n" * 35 + "z" + "\t" * 33 + "w",
    "   leading and trailing   ",
    " ",
    "\n",
    "\n \n\t\n",
    "a\u00a0b\u3000c\u2009d\u200be\ufefff\x1fg\x7fh",
    "https://example.org/a?b=c&d=%20e#f  user@example.org C:\\dir\\file.txt",
    "$\\frac{a}{b} \\le \\sum_{i=1}^{n} x_i^2$ ≤ ∞ ∈ ℝ ⟨x⟩ 𝔹 𝟙",
]
EMOJI = """\
👍🏽
👩‍💻
👨‍👩‍👧‍👦
🏳️‍🌈
🇯🇵🇧🇷
❤️
☎︎
1️⃣
🧑🏿‍🚀
🫠
🥲🥹
😀😀😀
✨
©️
🤽🏻‍♀️""".splitlines()
CJK = """\
吾輩は猫である。名前はまだ無い。
東京都千代田区丸の内１丁目
「こんにちは」、世界！｜ｶﾀｶﾅ
天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。
人工智能正在改变世界
訓練資料與驗證資料必須分開
籙膂蟳爨麤龘
동해 물과 백두산이 마르고 닳도록
대한민국 서울특별시
훈민정음 ㄱㄴㄷ
がぎぐげご
ﾊﾝｶｸ　ゼンカク
㍿㌔㍉""".splitlines()
WORDS = """\
What is the capital of France?
Translate to German: good morning
2 + 2 = ?
Résumé naïve café coöperate
Привет, как дела?
مرحبا بالعالم
שלום עולם
नमस्ते दुनिया
สวัสดีชาวโลก
Γειά σου Κόσμε
გამარჯობა
Բարեւ
ሰላም ልዑል
Xin chào thế giới
வணக்கம்
হ্যালো
ಹಲೋ
မင်္ဂလာပါ
ជំរាបសួរ
ᏣᎳᎩ""".splitlines()
CONTROL = ("<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<unused", "_of_turn>", "_of_image>")
LITERALS = (
    *("<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<unused0>", "<unused98>", "[multimodal]"),
    *("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<0x0A>"),
)
NOT_TEXT = (*CONTROL, "[multimodal]", "<image_soft_token>")


def locale_strings() -> Iterator[str]:
    """Names and patterns of every locale that CLDR knows, some joined and some alone."""
    for index, name in enumerate(sorted(babel.localedata.locale_identifiers())):
        locale = babel.Locale.parse(name)
        if locale.territory and index % 4:  # regional variants mostly repeat their language
            continue
        yield ", ".join(locale.months["format"]["wide"].values())
        yield " ".join(locale.days["format"]["abbreviated"].values())
        yield " | ".join(str(pattern) for pattern in locale.date_formats.values())
        territories, languages = list(locale.territories.values()), list(locale.languages.values())
        yield "; ".join(territories[index % 7 :: 29])
        yield "\n".join(languages[index % 11 :: 61])
        yield from territories[index % 13 :: 67]
        yield from list(locale.currencies.values())[index % 17 :: 151]


def random_strings(rng: random.Random, vocab: list[str]) -> Iterator[str]:
    """Random Unicode, digits, and rare pieces side by side."""
    for _ in range(300):
        points = (rng.choice((0x7F, 0x7FF, 0xFFFF, 0x10FFFF)) for _ in range(rng.randint(1, 24)))
        text = "".join(chr(rng.randint(1, top)) for top in points)
        yield text.encode("utf-8", "ignore").decode()  # drops surrogates
    for _ in range(150):
        yield f"{rng.randint(0, 10 ** rng.randint(1, 20)):,}  {rng.uniform(-1e3, 1e3):.4g}"
    for _ in range(500):
        yield "".join(rng.choices(vocab, k=rng.randint(2, 8))).replace("▁", " ")
    for _ in range(200):
        spaces = (" " * rng.randint(1, 34), "\n" * rng.randint(1, 34), "\t" * rng.randint(1, 34))
        yield "".join(rng.choice((*spaces, "if", "}", "x =", "文")) for _ in range(8))


def strings(vocab: list[str]) -> list[str]:
    rng = random.Random(0)
    emoji = [*EMOJI, " ".join(EMOJI), "".join(EMOJI)]
    texts = [*CODE, *emoji, *CJK, *WORDS, *locale_strings(), *random_strings(rng, vocab)]
    wanted = [t for t in texts if t and "▁" not in t and not any(c in t for c in NOT_TEXT)]
    return list(dict.fromkeys(wanted))


def literal_strings() -> Iterator[str]:
    """Text in which somebody wrote what steers, whole, cut short, side by side, and U+2581."""
    for index, name in enumerate(LITERALS):
        around = [*WORDS, *CJK, *CODE]
        for text in (around[index], around[-1 - index], ""):
            yield f"{text}{name}"
            yield f"{name} {text}"
            yield f"{text[:7]} {name}{name}\n{text[7:]}"
            yield f"{text}{name[:-1]} {name[1:]}"
    yield from ("a▁b", "▁", " ▁ ", "▁▁▁x", "".join(LITERALS), " ".join(LITERALS))


def conversations() -> Iterator[tuple[str | None, list[str]]]:
    """(system, texts of alternating turns), each with an answer last."""
    pool = [*WORDS, *CJK, *CODE[:5], *EMOJI[:4], *CODE[10:]]
    texts = [text for text in pool if text.strip()]
    systems = [
        None,
        "Answer in JSON.",
        None,
        "  You are terse.\n",
        "あなたは翻訳者です。\n\n- 短く",
        "\nS",
    ]
    rng = random.Random(1)
    for index in range(60):
        turns = rng.choices(texts, k=2 * (1 + index % 3))
        if index % 4 == 0:  # what the template trims
            turns = [rng.choice(("", " ", "\n\n", "\t\n ")) + t + "\n\u3000 " for t in turns]
        yield systems[index % len(systems)], turns


def write(path: pathlib.Path, rows: Iterable[dict]) -> None:
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    print(f"{path}: {len(lines)} rows, {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("published", type=pathlib.Path)
    parser.add_argument("golden", type=pathlib.Path)
    args = parser.parse_args()
    tokenizer = tokenizers.Tokenizer.from_file(str(args.published / "tokenizer.json"))
    template = json.loads((args.published / "tokenizer_config.json").read_text())["chat_template"]

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    vocab = sorted(tokenizer.get_vocab(with_added_tokens=False))
    texts = strings(vocab)
    write(args.golden / "tokenizer_gemma3.jsonl.gz", ({"text": t, "ids": ids(t)} for t in texts))

    literals = list(dict.fromkeys(literal_strings()))
    write(
        args.golden / "tokenizer_literals_gemma3.jsonl.gz",
        ({"text": t, "ids": ids(t)} for t in literals),
    )

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    compiled = environment.from_string(template)
    rows = []
    for system, turns in conversations():
        messages = [
            {"role": "assistant" if index % 2 else "user", "content": text}
            for index, text in enumerate(turns)
        ]
        head = [{"role": "system", "content": system}] if system else []
        whole = compiled.render(messages=head + messages, bos_token="<bos>")
        prompt = compiled.render(
            messages=head + messages[:-1], bos_token="<bos>", add_generation_prompt=True
        )
        rows.append(
            {"system": system, "turns": turns, "ids": ids(whole), "prompt_ids": ids(prompt)}
        )
    write(args.golden / "tokenizer_chat_gemma3.jsonl.gz", rows)
    (args.golden / "tokenizer_gemma3.jinja").write_text(template)


if __name__ == "__main__":
    main()
