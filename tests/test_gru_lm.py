"""The language model alone: decoding step by step, beam search's reordering, its options."""

import pytest
import torch
from fairseq.data import Dictionary, TruncatedDictionary

import fairseq_rnnprune.plugin  # noqa: F401
from fairseq_rnnprune.layers import Linear
from fairseq_rnnprune.models.gru_lm import GRULanguageModel, GRULanguageModelConfig
from fairseq_rnnprune.pruning import read_tag


class Task:
    source_dictionary = target_dictionary = Dictionary()


for word in "abcdefghij":
    Task.target_dictionary.add_symbol(word)


def config(**options):
    sizes = {"decoder_embed_dim": 6, "decoder_hidden_size": 8, "tokens_per_sample": 16}
    return GRULanguageModelConfig(**sizes | options)


def build(**options):
    torch.manual_seed(0)
    return GRULanguageModel.build_model(config(**options), Task).eval()


TOKENS = torch.tensor([[2, 5, 9, 4, 7], [2, 4, 4, 8, 6]])
VARIANTS = [
    {},
    {"decoder_layers": 2},
    {"share_decoder_input_output_embed": True},
    {"share_decoder_input_output_embed": True, "decoder_embed_dim": 8},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_step_by_step_equals_all_at_once(options):
    decoder = build(**options).decoder
    whole, extra = decoder(TOKENS)
    assert whole.shape == (2, 5, len(Task.target_dictionary)) and extra["attn"] == [None]
    state = {}
    for t in range(5):
        step, _ = decoder(TOKENS[:, : t + 1], incremental_state=state)
        torch.testing.assert_close(step[:, 0], whole[:, t])


def test_a_prefix_and_then_steps():
    decoder = build().decoder
    whole, _ = decoder(TOKENS)
    state = {}
    prefix, _ = decoder(TOKENS[:, :3], incremental_state=state)
    torch.testing.assert_close(prefix, whole[:, :3])
    step, _ = decoder(TOKENS[:, :4], incremental_state=state)
    torch.testing.assert_close(step[:, 0], whole[:, 3])


def test_the_state_follows_the_beam():
    decoder = build(decoder_layers=2).decoder
    order = torch.tensor([1, 1, 0])
    state = {}
    decoder(TOKENS[:, :3], incremental_state=state)
    decoder.reorder_incremental_state(state, order)
    step, _ = decoder(TOKENS[order][:, :4], incremental_state=state)
    whole, _ = decoder(TOKENS[order][:, :4])
    torch.testing.assert_close(step[:, 0], whole[:, 3])
    decoder.reorder_incremental_state({}, order)  # nothing cached yet: nothing to do


def test_parameters_have_the_names_of_torch():
    names = build(decoder_layers=2).state_dict().keys()
    assert {"decoder.gru.weight_ih_l0", "decoder.gru.weight_hh_l1"} <= set(names)


def test_every_matrix_is_tagged():
    model = build(adaptive_softmax_cutoff="4,14")
    tags = {n: read_tag(p) for n, p in model.named_parameters()}
    assert {n for n, t in tags.items() if t is None} == {
        n for n, p in model.named_parameters() if p.dim() != 2
    }
    assert tags["decoder.adaptive_softmax.head.weight"].type == "linear"
    assert tags["decoder.gru.weight_hh_l0"].gates == 3


def test_a_tied_output_layer_is_one_parameter():
    model = build(share_decoder_input_output_embed=True)
    assert model.decoder.output_projection.weight is model.decoder.embed_tokens.weight
    assert read_tag(model.decoder.embed_tokens.weight).type == "linear"


def test_adaptive_softmax_gives_probabilities():
    decoder = build(adaptive_softmax_cutoff="4,14").decoder
    features, _ = net_output = decoder(TOKENS)
    assert features.shape == (2, 5, 8)
    total = decoder.get_normalized_probs(net_output, log_probs=False).sum(-1)
    torch.testing.assert_close(total, torch.ones(2, 5))


def test_adaptive_softmax_runs_packed():
    model = build(adaptive_softmax_cutoff="4,14", packed="fp32")
    model.decoder.adaptive_softmax.head.weight.data[:, 1:] = 0.0
    names, net_output = list(model.state_dict()), model.decoder(TOKENS)

    def probabilities():
        return model.get_normalized_probs(net_output, log_probs=True).detach()

    dense = probabilities()
    model.make_generation_fast_()
    layers = [m for m in model.decoder.adaptive_softmax.modules() if isinstance(m, Linear)]
    assert len(layers) == 3 and all(layer.sparse is not None for layer in layers)
    with torch.no_grad():
        torch.testing.assert_close(probabilities(), dense)
    assert list(model.state_dict()) == names


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="--share-decoder-input-output-embed, got both; drop one"):
        build(adaptive_softmax_cutoff="4,14", share_decoder_input_output_embed=True)


def test_fewer_symbols_out_than_in():
    # As --output-dictionary-size makes them.
    class Truncated(Task):
        target_dictionary = TruncatedDictionary(Task.target_dictionary, 8)

    decoder = GRULanguageModel.build_model(config(), Truncated).decoder
    assert decoder(TOKENS)[0].shape == (2, 5, 8)
    with pytest.raises(ValueError, match="got 14 symbols in and 8 out; drop it, or --output-dict"):
        GRULanguageModel.build_model(config(share_decoder_input_output_embed=True), Truncated)
