"""The gpt-oss forward pass, written once over ops."""

from torch import Tensor

from haast import ops
from haast.config import ModelConfig
from haast.model.kv_cache import KVCache
from haast.model.parameters import Parameters
from haast.parallel.collectives import Ranks


class GptOss:
    """A gpt-oss network with its parameters.

    Knows no kernels: which implementation of each op runs is `haast.ops.pin`'s business.

    config      of what is computed here: a share's own if the network is on several ranks
    parameters  of that
    max_length  positions that there may be
    ranks       those that compute the network together; None = this process alone does
    """

    def __init__(
        self,
        config: ModelConfig,
        parameters: Parameters,
        max_length: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self.ranks = ranks
        self.parameters = parameters
        self.device = parameters.embedding.device
        self.dtype = parameters.embedding.dtype
        cos, sin = ops.rope_tables(config.rope, config.head_dim, max_length)
        self.rope_tables = (cos.to(self.device), sin.to(self.device))
        self.shadow: ops.ShadowHead | None = None

    def forward(self, token_ids: Tensor, meta: ops.StepMeta, kv: KVCache) -> Tensor:
        """Run the new tokens of one step; their keys and values are added to the cache.

        token_ids  [T] int64
        meta       StepMeta of these tokens
        kv         KVCache, written in place
        returns    [T, H], normalised hidden states for `logits`
        """
        layers, eps = self.parameters.layers, self.config.rms_norm_eps
        add_rms_norm = ops.add_rms_norm if self.ranks is None else self.ranks.add_rms_norm
        after = [*(layer.attn_norm for layer in layers[1:]), self.parameters.norm]
        x = self.parameters.embedding[token_ids]
        normed = ops.rms_norm(x, layers[0].attn_norm, eps)
        for index, (layer, next_norm) in enumerate(zip(layers, after, strict=True)):
            delta = self._attention(normed, index, layer, meta, kv)
            x, normed = add_rms_norm(x, delta, layer.mlp_norm, eps)
            x, normed = add_rms_norm(x, self._experts(normed, layer), next_norm, eps)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [N, H] -> scores of every token [N, V], same dtype."""
        scores = ops.linear(hidden, self.parameters.lm_head, None)
        return scores if self.ranks is None else self.ranks.gather(scores)

    def cast_shadow(self) -> None:
        """Make the shadow head that `short_logits` needs."""
        self.shadow = ops.shadow_of(self.parameters.lm_head)

    def short_logits(self, hidden: Tensor, sampling: ops.Sampling) -> Tensor:
        """The same as `logits`, or -inf where a token cannot be sampled."""
        assert self.shadow is not None
        return ops.shortlist(hidden, self.parameters.lm_head, self.shadow, sampling)

    def persistent_step(self, kv: KVCache) -> ops.DecodeStep:
        """Computes decode steps of one request in one kernel; rank 0 gets the logits of all."""
        if self.ranks is None:
            return ops.DecodeStep(self.step_network(kv))
        assert self.ranks.step_ranks is not None, "a plan for kernels, and ranks without"
        return ops.DecodeStep(self.step_network(kv), self.ranks.step_ranks)

    def step_network(self, kv: KVCache) -> ops.StepNetwork:
        """What `ops.DecodeStep` computes steps of."""
        layers = tuple(
            ops.StepLayer(**vars(own), k_cache=k, v_cache=v, window=window)
            for own, (k, v), window in zip(
                self.parameters.layers, kv.layers, self.config.windows, strict=True
            )
        )
        return ops.StepNetwork(
            layers,
            self.parameters.embedding,
            self.parameters.norm,
            self.parameters.lm_head,
            *self.rope_tables,
            self.config.rms_norm_eps,
            self.config.swiglu_limit,
        )

    def _attention(
        self, x: Tensor, index: int, layer: ops.LayerParameters, meta: ops.StepMeta, kv: KVCache
    ) -> Tensor:
        qkv = ops.linear(x, layer.qkv_weight, layer.qkv_bias)
        window, cache = self.config.windows[index], kv.layers[index]
        slots = meta.slots_of(window)
        q = ops.rope_kv_write(qkv, meta.positions, *self.rope_tables, *cache, slots)
        out = ops.attention(q, *cache, layer.sinks, meta, window)
        return ops.linear(out.flatten(1), layer.out_weight, layer.out_bias)

    def _experts(self, x: Tensor, layer: ops.LayerParameters) -> Tensor:
        config = self.config
        scores = ops.linear(x, layer.router_weight, layer.router_bias)
        routing = ops.route(scores, config.num_active_experts)
        h = ops.moe_up(x, layer.up_weight, layer.up_bias, routing, config.swiglu_limit)
        return ops.moe_down(h, layer.down_weight, layer.down_bias, routing)
