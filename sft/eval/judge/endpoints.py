"""The clients of OpenAI-compatible endpoints and of Gemini's: one prompt to one reply.

Their own retrying is switched off: ``remote`` does it for both, and can be stopped.
"""

import os
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.eval.judge.backend import Reply
from sft.eval.judge.remote import Busy, Endpoint, Refused, failed

_KEYS = {"openai": "OPENAI_API_KEY", "gemini": "GEMINI_API_KEY"}


def make(config: ConfigDict) -> Endpoint:
    """See ``backends.make``."""
    judge = config.judge
    if not judge.model:
        raise UserError(
            f"config.judge.model is not set: name the model to ask of config.judge.backend = "
            f"{judge.backend!r}."
        )
    variable, key = _key(judge)
    try:
        send = {"openai": _openai, "gemini": _gemini}[judge.backend](judge, variable, key)
    except ImportError as error:
        raise UserError(
            f"config.judge.backend = {judge.backend!r} needs a package that is not installed "
            f"({error.name}). Install the extra 'judge'."
        ) from None
    identity = {
        "backend": judge.backend,
        "model": judge.model,
        "url": judge.url,
        "temperature": judge.temperature,
        "max_new_tokens": judge.max_new_tokens,
    }
    return Endpoint(
        send,
        identity,
        concurrency=judge.concurrency,
        attempts=judge.attempts,
        max_wait=judge.max_wait,
    )


def _key(judge: ConfigDict) -> tuple[str, str]:
    """Name of the variable, and the key in it."""
    variable = judge.key_variable or _KEYS[judge.backend]
    key = os.environ.get(variable, "")
    if not key and judge.url and not judge.key_variable:
        return variable, "none"  # a server of one's own; the clients insist on a key
    if not key:
        raise UserError(
            f"${variable} is not set: config.judge.backend = {judge.backend!r} takes its key from "
            "there (config.judge.key_variable names another variable)."
        )
    return variable, key


def _openai(judge: ConfigDict, variable: str, key: str) -> Callable[[str], Reply]:
    import openai

    client = openai.OpenAI(
        api_key=key, base_url=judge.url or None, timeout=judge.timeout, max_retries=0
    )
    # OpenAI's newer models take the new name alone; most other servers know only the old one.
    cap = "max_tokens" if judge.url else "max_completion_tokens"
    options: dict[str, Any] = {cap: judge.max_new_tokens}
    if judge.temperature >= 0:
        options["temperature"] = judge.temperature

    def send(prompt: str) -> Reply:
        try:
            answer = client.chat.completions.create(
                model=judge.model, messages=[{"role": "user", "content": prompt}], **options
            )
            choice = answer.choices[0]
            text = choice.message.content or ""
        except openai.APIStatusError as error:
            said = error.body.get("message") if isinstance(error.body, dict) else None
            message = str(said or error.message)
            raise failed(error.status_code, message, error.response.headers, variable) from None
        except openai.APIConnectionError as error:
            raise Busy(f"{error} {error.__cause__ or ''}".strip()) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise Busy(f"not a chat completion: {type(error).__name__}: {error}") from None
        usage = answer.usage
        read, written = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return Reply(text, read, written, choice.finish_reason == "length")

    return send


def _gemini(judge: ConfigDict, variable: str, key: str) -> Callable[[str], Reply]:
    from google import genai
    from google.genai import errors, types

    client = genai.Client(
        api_key=key,
        vertexai=False,
        http_options=types.HttpOptions(
            base_url=judge.url or None,
            timeout=round(1000 * judge.timeout),
            retry_options=types.HttpRetryOptions(attempts=1),
        ),
    )
    options = types.GenerateContentConfig(
        max_output_tokens=judge.max_new_tokens,
        temperature=judge.temperature if judge.temperature >= 0 else None,
    )

    def send(prompt: str) -> Reply:
        try:
            answer = client.models.generate_content(
                model=judge.model, contents=prompt, config=options
            )
        except errors.APIError as error:
            headers = dict(getattr(error.response, "headers", None) or {})
            headers = {name.lower(): value for name, value in headers.items()}
            if "retry-after" not in headers:
                headers["retry-after"] = _retry_info(error.details)
            raise failed(error.code, error.message or "", headers, variable) from None
        except Exception as error:
            # The client lets errors of one of three HTTP libraries through, and of reading JSON.
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if kinds & {"TransportError", "OSError", "JSONDecodeError", "UnknownApiResponseError"}:
                raise Busy(f"{type(error).__name__}: {error}") from None
            raise
        blocked = answer.prompt_feedback and answer.prompt_feedback.block_reason
        if blocked:
            raise Refused(f"the prompt is blocked ({blocked})")
        if not answer.candidates:
            raise Busy("a reply without candidates")
        candidate = answer.candidates[0]
        parts = (candidate.content.parts or []) if candidate.content else []
        text = "".join(part.text or "" for part in parts if not part.thought)
        usage = answer.usage_metadata or types.GenerateContentResponseUsageMetadata()
        written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
        cut = candidate.finish_reason == types.FinishReason.MAX_TOKENS
        return Reply(text, usage.prompt_token_count or 0, written, cut)

    return send


def _retry_info(details: Any) -> str:
    """Seconds that Gemini asks to wait: ``{"error": {"details": [{"retryDelay": "17s"}]}}``."""
    found = details.get("error", {}).get("details", []) if isinstance(details, dict) else []
    delays = [entry["retryDelay"] for entry in found if "retryDelay" in entry]
    return delays[0].removesuffix("s") if delays else ""
