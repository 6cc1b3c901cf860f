"""PyNaCl 1.6.1 → 1.6.2 end to end: the fix travels, the checks pass, and calls of libsodium agree before, patched, reverted and fixed."""

from __future__ import annotations

import hashlib

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases.releases import CVE_2025_69277, extract
from hotpatch.cases.story_release import BASE_POINT, IS_VALID_POINT, MIXED_ORDER_POINT
from hotpatch.errors import InputError
from hotpatch.verifier import MicroOutcome, check_patch, rehearse

pytestmark = [pytest.mark.release, pytest.mark.parametrize("machine", Machine)]
KEY, NONCE, TEXT, SEED = bytes(range(32)), bytes(range(64, 88)), b"patched while it runs", bytes(range(100, 132))
SCALAR = bytes([3, *[0] * 31])
CALLS = 30
VOID = ("crypto_core_ed25519_scalar_reduce", "crypto_core_ed25519_scalar_mul", "randombytes_buf_deterministic", "sodium_increment")


class Sodium:
    """Calls of a process by name; what each gave, in order."""

    def __init__(self, process: hotpatch.Process) -> None:
        self._process = process
        self.given: list[tuple[str, int, tuple[bytes, ...]]] = []

    def call(self, name: str, *arguments: object) -> tuple[bytes, ...]:
        """Numbers in brackets are buffers of that many bytes; gives their contents."""
        passed = [hotpatch.Buffer(argument[0]) if isinstance(argument, list) else argument for argument in arguments]
        value = self._process.call(name, *passed) & 0xFFFF_FFFF
        buffers = tuple(bytes(argument.data) for argument in passed if isinstance(argument, hotpatch.Buffer))
        self.given.append((name, 0 if name in VOID else value, buffers))
        return buffers


def use(process: hotpatch.Process) -> list[tuple[str, int, tuple[bytes, ...]]]:
    """What a program asks of libsodium, except for whether the point of mixed order is valid."""
    sodium = Sodium(process)
    call, size = sodium.call, len(TEXT)
    call("crypto_hash", [64], TEXT, size)
    call("crypto_hash_sha256", [32], TEXT, size)
    call("crypto_hash_sha512", [64], TEXT, size)
    call("crypto_shorthash_siphash24", [8], TEXT, size, KEY)
    call("crypto_shorthash_siphashx24", [16], TEXT, size, KEY)
    call("crypto_generichash_blake2b_salt_personal", [32], 32, TEXT, size, KEY, 32, KEY[:16], KEY[16:])
    public, secret = call("crypto_sign_seed_keypair", [32], [64], SEED)
    signed, _ = call("crypto_sign", [64 + size], [8], TEXT, size, secret)
    call("crypto_sign_open", [size], [8], signed, len(signed), public)
    call("crypto_sign_open", [size], [8], signed[:-1] + b"!", len(signed), public)
    call("crypto_sign_ed25519_pk_to_curve25519", [32], public)
    call("crypto_sign_ed25519_sk_to_curve25519", [32], secret)
    mine, own = call("crypto_box_seed_keypair", [32], [32], SEED)
    yours, other = call("crypto_box_seed_keypair", [32], [32], KEY)
    call("crypto_box_beforenm", [32], yours, own)
    (boxed,) = call("crypto_box_easy", [16 + size], TEXT, size, NONCE, yours, own)
    call("crypto_box_open_easy", [size], boxed, len(boxed), NONCE, mine, other)
    (locked,) = call("crypto_secretbox_easy", [16 + size], TEXT, size, NONCE, KEY)
    call("crypto_secretbox_open_easy", [size], locked, len(locked), NONCE, KEY)
    call("crypto_scalarmult", [32], own, yours)
    call("crypto_scalarmult_base", [32], own)
    call("crypto_scalarmult_ed25519", [32], SCALAR, BASE_POINT)
    call("crypto_scalarmult_ed25519_base_noclamp", [32], SCALAR)
    call("crypto_scalarmult_ed25519_noclamp", [32], SCALAR, public)
    call("crypto_core_ed25519_add", [32], BASE_POINT, public)
    call("crypto_core_ed25519_sub", [32], BASE_POINT, public)
    call("crypto_core_ed25519_from_uniform", [32], SEED)
    call("crypto_core_ed25519_scalar_reduce", [32], KEY + SEED)
    call("crypto_core_ed25519_scalar_invert", [32], SCALAR)
    call("crypto_core_ed25519_scalar_mul", [32], SCALAR, SEED)
    for cipher, nonce in (("chacha20poly1305_ietf", NONCE[:12]), ("xchacha20poly1305_ietf", NONCE)):
        hidden, _ = call(f"crypto_aead_{cipher}_encrypt", [16 + size], [8], TEXT, size, KEY, 32, 0, nonce, SEED)
        call(f"crypto_aead_{cipher}_decrypt", [size], [8], 0, hidden, len(hidden), KEY, 32, nonce, SEED)
    call("crypto_kx_client_session_keys", [32], [32], mine, own, yours)
    call("crypto_kx_server_session_keys", [32], [32], yours, other, mine)
    call("randombytes_buf_deterministic", [64], 64, SEED)
    call("crypto_pwhash_scryptsalsa208sha256_ll", TEXT, size, KEY, 32, 16, 1, 1, [32], 32)
    call("sodium_increment", [4], 4)
    call("sodium_memcmp", KEY, KEY, 32)
    call(IS_VALID_POINT, BASE_POINT)
    call(IS_VALID_POINT, bytes(32))
    return sodium.given


def images(machine: Machine, factory: pytest.TempPathFactory) -> tuple[hotpatch.Image, hotpatch.Image]:
    try:
        base, fixed = extract(CVE_2025_69277, machine, cache=factory.getbasetemp() / "wheels")
    except InputError as error:
        if "could not fetch" in str(error):
            pytest.skip(str(error))
        raise
    return hotpatch.open(base), hotpatch.open(fixed)


def test_release_is_patched_and_everything_else_stays(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    base, fixed = images(machine, tmp_path_factory)
    diff = hotpatch.diff(base, fixed)
    patch = hotpatch.build(diff)
    rehearse(base, patch)
    check = check_patch(base, fixed, patch, diff)
    assert {report.outcome for report in (*check.travelling, *check.relocated)} == {MicroOutcome.AGREE}
    assert all(report.coverage == 1 for report in check.travelling)

    process, newer = hotpatch.Process(base), hotpatch.Process(fixed)
    before = use(process)
    by_name = {name: buffers for name, _, buffers in before}
    assert len(by_name) >= CALLS
    assert by_name["crypto_hash_sha256"] == (hashlib.sha256(TEXT).digest(),)
    assert by_name["crypto_hash_sha512"] == (hashlib.sha512(TEXT).digest(),)
    assert by_name["crypto_pwhash_scryptsalsa208sha256_ll"] == (hashlib.scrypt(TEXT, salt=KEY, n=16, r=1, p=1, dklen=32),)
    assert by_name["crypto_secretbox_open_easy"] == by_name["crypto_box_open_easy"] == (TEXT,)
    assert [value for name, value, _ in before if name == "crypto_sign_open"] == [0, 0xFFFF_FFFF]
    assert [value for name, value, _ in before if name == IS_VALID_POINT] == [1, 0]
    assert process.call(IS_VALID_POINT, MIXED_ORDER_POINT) & 0xFFFF_FFFF == 1

    applied = process.apply(patch)
    assert use(process) == before
    assert process.call(IS_VALID_POINT, MIXED_ORDER_POINT) & 0xFFFF_FFFF == 0
    applied.revert()
    assert use(process) == before
    assert process.call(IS_VALID_POINT, MIXED_ORDER_POINT) & 0xFFFF_FFFF == 1
    assert use(newer) == before
    assert newer.call(IS_VALID_POINT, MIXED_ORDER_POINT) & 0xFFFF_FFFF == 0
