#!/usr/bin/env bash
# Runs tests under a sanitizer:
#   address   all unit and integration tests but for those named below, with AddressSanitizer
#   thread    the tests of what threads have in common, as far as no tasks are in them, with ThreadSanitizer
#
#   scripts/check-sanitizers.sh            both
#   scripts/check-sanitizers.sh address
#   scripts/check-sanitizers.sh thread
#   CARGO_TARGET_DIR                       where to build; target/sanitizers if not set
#
# Made for Linux on x86-64 with a toolchain of rustup's, which brings the sanitizers' runtimes. `thread` needs the
# standard library built with the sanitizer as well, or locks and channels of it would be taken for races. Its source
# comes with Debian's compiler, as for check-platforms.sh: rustc-web, cargo-web, rust-web-src.
set -euo pipefail

readonly TARGET=x86_64-unknown-linux-gnu
# Under AddressSanitizer these cannot pass:
#   waiting_takes_little_stack    frames are several times as large then
readonly ADDRESS_SKIPPED=(waiting_takes_little_stack)
# ThreadSanitizer does not know that a thread changes its stack, so nothing with tasks runs under it. That leaves these
# files, and of them what does not start a task:
readonly THREAD_TESTS=(
    channels events files futex poller poller_system queue queue_alloc queue_cancel queue_kill queue_remote
    queue_soundness signal sync_shared waiting
)

die() {
    echo "check-sanitizers: $*" >&2
    exit 2
}

# Unstable options of a stable compiler.
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=1

check_address() {
    local test skip=()
    for test in "${ADDRESS_SKIPPED[@]}"; do
        skip+=(--skip "$test")
    done
    echo "== address: left out: ${ADDRESS_SKIPPED[*]}"
    # Leaks are not looked for: handles that are forgotten on purpose are a part of the tests.
    # corosensei tells the sanitizer of its stacks only if it is asked to.
    ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=$TARGET_DIR/address \
        cargo test --no-fail-fast --lib --tests --target "$TARGET" --features corosensei/sanitizer -- "${skip[@]}"
}
