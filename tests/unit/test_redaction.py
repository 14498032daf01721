"""The removal of secrets from texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.redaction import scrub, scrub_all

S = "s3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"calling https://h.example/webhooks/a/b/0?token={S} failed",
        f"HTTPS://h.example/a?x=1&token={S}#y",
        f"PUT https://b.s3.amazonaws.com/k?X-Amz-Credential=A%2F1&X-Amz-Signature={S}: 403",
        f'{{"url":"https://h.example/a?token={S}"}}',
        f"https:\\/\\/h.example\\/a?x=1&token={S}",
        f"X-Amz-Signature={S}",
        f"x-amz-security-token: {S}",
        f"token={S}&x=1",
        f"token: {S}",
        f'"apiKey":"{S}"',
        f'"api_key" : "{S}"',
        f"Bearer {S}",
        f"authorization={S}",
    ],
)
def test_secrets_are_removed(text: str) -> None:
    """Tokens, keys and signatures are removed in every notation and replaced by a mark."""
    assert S not in scrub(text)
    assert "[removed]" in scrub(text)


@pytest.mark.parametrize(
    "text",
    [f"Authorization: Bearer {S}", f'"Authorization": "Bearer {S}"', f"{{'token': '{S}'}}", f"?token%3D{S}"],
)
def test_secrets_are_removed_from_headers_and_other_notations(text: str) -> None:
    """A whole authorization header, Python's notation of a dict, and an escaped query are redacted as well."""
    assert S not in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The prompt was blocked.",
        "see https://runware.ai/docs/models/klingai-2-1-master#request-duration",
        "https://vm.runware.ai/video/os/a/ws/5/vi/0b1d.mp4",
        "width must be 1920",
        "the tokenizer failed",
    ],
)
def test_other_texts_are_unchanged(text: str) -> None:
    """A text without a secret is unchanged."""
    assert scrub(text) == text


def test_host_and_path_of_an_address_stay() -> None:
    """Host and path stay, since they help an operator."""
    assert scrub("https://h.example/a/b?token=x y") == "https://h.example/a/b?[removed] y"


def test_every_text_inside_a_value_is_scrubbed() -> None:
    """Lists and objects are scrubbed in depth, and other values are unchanged."""
    value = {"a": [f"token={S}", 5, None, True], "b": {"c": f"https://h?x={S}"}, "d": 0.5}
    cleaned = scrub_all(value)
    assert S not in str(cleaned)
    assert cleaned == {"a": ["token=[removed]", 5, None, True], "b": {"c": "https://h?[removed]"}, "d": 0.5}


@given(st.text())
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    """A scrubbed text may be scrubbed again."""
    assert scrub(scrub(text)) == scrub(text)
