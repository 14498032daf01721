"""What is taken out of texts before anybody sees them."""

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
def test_secrets_are_taken_out(text: str) -> None:
    """Tokens, keys and signatures disappear from every way of writing them, and a mark stays."""
    assert S not in scrub(text)
    assert "[removed]" in scrub(text)


@pytest.mark.parametrize(
    "text",
    [f"Authorization: Bearer {S}", f'"Authorization": "Bearer {S}"', f"{{'token': '{S}'}}", f"?token%3D{S}"],
)
def test_secrets_are_taken_out_of_headers_and_other_notations(text: str) -> None:
    """A whole authorization header, Python's way of writing a dict, and an escaped query hide nothing either."""
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
def test_ordinary_texts_stay(text: str) -> None:
    """What holds no secret is left as it is."""
    assert scrub(text) == text


def test_what_stays_of_an_address_tells_where_it_pointed() -> None:
    """Host and path stay, since they help to find the trouble."""
    assert scrub("https://h.example/a/b?token=x y") == "https://h.example/a/b?[removed] y"


def test_every_text_inside_a_value_is_scrubbed() -> None:
    """Lists and objects are scrubbed in depth, and other values stay what they are."""
    value = {"a": [f"token={S}", 5, None, True], "b": {"c": f"https://h?x={S}"}, "d": 0.5}
    cleaned = scrub_all(value)
    assert S not in str(cleaned)
    assert cleaned == {"a": ["token=[removed]", 5, None, True], "b": {"c": "https://h?[removed]"}, "d": 0.5}


@given(st.text())
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    """What was scrubbed can be scrubbed again on its way."""
    assert scrub(scrub(text)) == scrub(text)
