"""A word's own vectors in CLIP: against diffusers' loader, which grows the table; what stays as it was; removal."""

import pytest
import torch
from torch import Tensor

from morelora import AdapterError, attach_vectors
from tests.morelora import clip

WORD = "zxq Style"
COUNTS = (1, 3, 11)


def vectors(count: int, *widths: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    names = ("text_encoder", "text_encoder_2")
    return {name: torch.randn(count, width, generator=generator) for name, width in zip(names, widths, strict=False)}


def attach(pipe: clip.Pipe, found: dict[str, Tensor], word: str = WORD):  # noqa: ANN201
    encoders = {name: getattr(pipe, name) for name in found}
    tokenizers = {name: getattr(pipe, name.replace("text_encoder", "tokenizer")) for name in found}
    return attach_vectors(encoders, tokenizers, word, found)


@pytest.mark.parametrize("count", COUNTS)
def test_hidden_states_are_those_of_diffusers_own_loader(count):
    ours, theirs, found = clip.sd(), clip.sd(), vectors(count, 16)
    attach(ours, found)
    theirs.load_textual_inversion({"x": found["text_encoder"]}, token="zxqstyle")
    prompt = theirs.maybe_convert_prompt("a fox, zxqstyle, cat", theirs.tokenizer)
    expected = theirs.text_encoder(clip.ids(theirs, prompt))[0]
    assert torch.equal(ours.text_encoder(clip.ids(ours, "a fox, zxq style, cat"))[0], expected)
    assert not torch.equal(ours.text_encoder(clip.ids(ours, "a fox, style, cat"))[0], expected)


@pytest.mark.parametrize("end", [clip.END_ID, 2], ids=["config", "older config"])
def test_sdxl_and_its_pooled_text(end):
    """``eos_token_id = 2`` is in SDXL's own config: transformers would pool at the word instead of at the end."""
    ours, theirs, found = clip.sdxl(end), clip.sdxl(), vectors(2, 16, 24)
    attached = attach(ours, found)
    for name in found:
        tokenizer = getattr(theirs, name.replace("text_encoder", "tokenizer"))
        theirs.load_textual_inversion(found[name], token="zxqstyle", text_encoder=getattr(theirs, name), tokenizer=tokenizer)
    for name in found:
        key = name.replace("text_encoder", "tokenizer")
        prompt = theirs.maybe_convert_prompt("zxqstyle, fox", getattr(theirs, key))
        one = getattr(ours, name)(clip.ids(ours, "zxq style, fox", key), output_hidden_states=True)
        other = getattr(theirs, name)(clip.ids(theirs, prompt, key), output_hidden_states=True)
        assert torch.equal(one.hidden_states[-2], other.hidden_states[-2])
    assert torch.equal(one.text_embeds, other.text_embeds)
    attached.remove()
    assert {m.eos_token_id for m in ours.text_encoder_2.modules() if hasattr(m, "eos_token_id")} == {end}


def test_other_texts_keep_their_tokens():
    pipe = clip.sd()
    plain = clip.tokenizer()
    attach(pipe, vectors(2, 16))
    for text in ("a fox, cat", "zxq", "zxq styles", "azxq style", "style", "ZXQ, style"):
        assert pipe.tokenizer(text).input_ids == plain(text).input_ids
    first = len(plain)
    around = plain("fox, ").input_ids[:-1]
    for text in ("fox, zxq style", "fox, ZXQ   STYLE", "fox, zxq\nstyle"):
        assert pipe.tokenizer(text).input_ids == [*around, first, first + 1, clip.END_ID]


def test_removal_gives_model_and_tokenizer_back_bit_for_bit():
    pipe, before = clip.sdxl(end=2), clip.sdxl(end=2)
    attached = attach(pipe, vectors(2, 16, 24))
    attached.remove()
    assert len(attached) == 0
    for name in ("text_encoder", "text_encoder_2"):
        one, other = getattr(pipe, name).state_dict(), getattr(before, name).state_dict()
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        key = name.replace("text_encoder", "tokenizer")
        assert getattr(pipe, key).backend_tokenizer.to_str() == getattr(before, key).backend_tokenizer.to_str()
        assert getattr(pipe, key).decode([0, 1, 26]) == getattr(before, key).decode([0, 1, 26])
        ids = clip.ids(before, WORD, key)
        assert torch.equal(clip.ids(pipe, WORD, key), ids)
        assert torch.equal(getattr(pipe, name)(ids)[0], getattr(before, name)(ids)[0])


def test_words_stack_and_come_out_in_order():
    pipe = clip.sd()
    one = attach(pipe, vectors(2, 16), "one")
    two = attach(pipe, vectors(3, 16), "two")
    table = pipe.text_encoder.get_input_embeddings()
    rows = table(clip.ids(pipe, "one two"))[0, 1:6]
    assert torch.equal(rows, torch.cat([one.vectors()["text_encoder"], two.vectors()["text_encoder"]]))
    with pytest.raises(AdapterError, match="added after 'one'"):
        one.remove()
    two.remove()
    one.remove()
    assert pipe.tokenizer("one two").input_ids == clip.tokenizer()("one two").input_ids


def test_only_the_vectors_get_a_gradient_and_it_is_that_of_the_grown_table():
    ours, theirs, found = clip.sd(), clip.sd(), vectors(2, 16)
    attached = attach(ours, found)
    ours.text_encoder(clip.ids(ours, f"{WORD} fox {WORD}"))[0].square().sum().backward()
    theirs.load_textual_inversion(found["text_encoder"], token="zxqstyle")
    table = theirs.text_encoder.get_input_embeddings().weight.requires_grad_(True)
    prompt = theirs.maybe_convert_prompt("zxqstyle fox zxqstyle", theirs.tokenizer)
    theirs.text_encoder(clip.ids(theirs, prompt))[0].square().sum().backward()
    assert torch.allclose(attached.parameters()[0].grad, table.grad[-2:], rtol=1e-5, atol=1e-6)
    frozen = [p for p in ours.text_encoder.parameters() if p is not attached.parameters()[0]]
    assert all(p.grad is None and not p.requires_grad for p in frozen)


def test_off_means_the_start():
    pipe, found = clip.sd(), vectors(2, 16)
    attached = attach(pipe, found)
    before = pipe.text_encoder(clip.ids(pipe, WORD))[0]
    with torch.no_grad():
        attached.parameters()[0].add_(1.0)
    assert not torch.equal(pipe.text_encoder(clip.ids(pipe, WORD))[0], before)
    attached.learnt = False
    assert not attached.learnt and torch.equal(pipe.text_encoder(clip.ids(pipe, WORD))[0], before)


def test_vectors_stay_in_float32_over_a_half_precision_base():
    pipe, found = clip.sd(), vectors(1, 16)
    pipe.text_encoder.to(torch.bfloat16)
    attached = attach(pipe, found)
    assert torch.equal(attached.vectors()["text_encoder"], found["text_encoder"])
    states = pipe.text_encoder(clip.ids(pipe, WORD))[0]
    assert states.dtype == torch.bfloat16
    states.float().sum().backward()
    assert attached.parameters()[0].grad.dtype == torch.float32


def test_two_encoders_may_share_a_tokenizer():
    pipe = clip.sdxl()
    pipe.tokenizer_2 = pipe.tokenizer
    attached = attach(pipe, vectors(2, 16, 24))
    assert len(pipe.tokenizer(WORD, add_special_tokens=False).input_ids) == 2
    attached.remove()
    assert pipe.tokenizer(WORD).input_ids == clip.tokenizer()(WORD).input_ids


def test_state_round_trip():
    pipe, other = clip.sd(), clip.sd()
    state = attach(pipe, vectors(2, 16)).state()
    fresh = attach(other, {"text_encoder": torch.zeros(2, 16)})
    fresh.load_state(state)
    assert torch.equal(fresh.parameters()[0], state["text_encoder.vectors"])
    with pytest.raises(AdapterError, match="does not fit this embedding"):
        fresh.load_state({"text_encoder.vectors": torch.zeros(3, 16)})


@pytest.mark.parametrize(
    ("word", "found", "message"),
    [
        (WORD, vectors(2, 15), "16 wide: it was made for another family"),
        (WORD, vectors(0, 16), "at least one"),
        ("  ", vectors(2, 16), "cannot be a placeholder"),
    ],
)
def test_what_cannot_work_is_told_and_changes_nothing(word, found, message):
    pipe = clip.sd()
    with pytest.raises(AdapterError, match=message):
        attach(pipe, found, word)
    assert pipe.tokenizer(WORD).input_ids == clip.tokenizer()(WORD).input_ids
    assert type(pipe.text_encoder.get_input_embeddings()) is torch.nn.Embedding


def test_missing_parts_and_a_word_that_is_taken_are_told():
    pipe = clip.sdxl()
    with pytest.raises(AdapterError, match="text encoders are: text_encoder, text_encoder_2"):
        attach_vectors({n: getattr(pipe, n) for n in ("text_encoder", "text_encoder_2")}, {}, WORD, vectors(1, 16))
    with pytest.raises(AdapterError, match="needs the tokenizer of text_encoder"):
        attach_vectors({"text_encoder": pipe.text_encoder}, {}, WORD, vectors(1, 16))
    attach(pipe, vectors(1, 16))
    with pytest.raises(AdapterError, match="has a mark of its own for it"):
        attach(pipe, vectors(1, 16))
