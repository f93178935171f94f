"""What a process opens once for all its models on several GPUs; known without any."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed import _symmetric_memory as symmetric

from haast.parallel import gpu, peer_memory

CPU = torch.device("cpu")
NBYTES = 64


@pytest.fixture
def met(monkeypatch):
    """How many bytes each rendezvous was about; this rank is the only one."""
    told = []

    class Memory:
        def __init__(self, inbox):
            self.inbox = inbox

        def get_buffer(self, rank, shape, dtype):
            return self.inbox[: shape[0]]

    def rendezvous(inbox, group):
        told.append(len(inbox))
        return Memory(inbox)

    monkeypatch.setattr(symmetric, "empty", lambda n, dtype, device: torch.ones(n, dtype=dtype))
    monkeypatch.setattr(symmetric, "rendezvous", rendezvous)
    peer_memory._open_once.cache_clear()
    yield told
    peer_memory._open_once.cache_clear()


def test_memory_is_opened_once_and_every_model_finds_it_empty(met):
    with torch.inference_mode():
        first, [own] = peer_memory._open("rows", CPU, 0, 1, NBYTES)
    assert not own.any()
    own.fill_(7)
    again, [same] = peer_memory._open("rows", CPU, 0, 1, NBYTES)
    assert same is own and not own.any() and again.tolist() == [own.data_ptr()]
    other, _ = peer_memory._open("steps", CPU, 0, 1, NBYTES)
    assert other.tolist() != first.tolist() and met == [NBYTES, NBYTES]


def test_models_of_other_sizes_have_the_same_inboxes(met, monkeypatch):
    monkeypatch.setattr(peer_memory, "_why_not", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    for hidden_size in (64, 2880, 4096):
        peer_memory.PeerMemory(CPU, 0, 2, hidden_size)
        peer_memory.open_step_ranks(CPU, 0, 2, hidden_size)
    steps = 2 * (2 + 4) * 4096 + 2 + 2 * 160
    assert met == [2 * 2 * 128 * 4096 * 4, 4 * steps, 2 * 262_144]


def test_the_group_is_made_once_and_inboxes_are_emptied_when_all_are_done(monkeypatch):
    order, is_made = [], []
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: order.append("wait"))
    monkeypatch.setattr(dist, "is_initialized", lambda: bool(is_made))
    monkeypatch.setattr(dist, "barrier", lambda: order.append("all"))
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: is_made.append("made"))
    monkeypatch.setattr(gpu, "PeerMemory", lambda *_: order.append("rows"))
    monkeypatch.setattr(gpu, "open_step_ranks", lambda *_: order.append("steps"))
    for _ in range(2):
        gpu.GpuRanks(CPU, None, 0, 2, 64)
    assert is_made == ["made"] and order == ["wait", "all", "rows", "steps", "all"] * 2
