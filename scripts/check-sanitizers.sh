#!/usr/bin/env bash
# Runs tests under a sanitizer:
#   address   all unit and integration tests but for those named below, and the examples, with AddressSanitizer
#   thread    the tests of what threads have in common, with ThreadSanitizer
#   attacks   what is meant to break the library, with AddressSanitizer: a part of `address` that .ci/run has time for
#
#   scripts/check-sanitizers.sh            address and thread
#   scripts/check-sanitizers.sh address
#   scripts/check-sanitizers.sh thread
#   CARGO_TARGET_DIR                       where to build; target/sanitizers if not set
#
# Made for Linux on x86-64 with a toolchain of rustup's, which brings the sanitizers' runtimes. `thread` also needs the
# standard library's source, to build that with the sanitizer: what its locks and channels do would be taken for races
# otherwise. Debian 12 carries a compiler together with its source, as scripts/check-platforms.sh uses it:
#   apt-get install rustc-web cargo-web rust-web-src
set -euo pipefail

readonly TARGET=x86_64-unknown-linux-gnu
# What cannot pass with AddressSanitizer:
#   waiting_takes_little_stack, ten_thousand_timeouts_at_once
#                                 frames are several times as large then
#   a_futex_wait_without_a_thread_is_not_queued_behind_another
#                                 it lets the process have no more address space, and the sanitizer needs some
#   a_hundred_thousand_tasks_in_sequence_leave_memory_flat, stacks_give_their_memory_back_after_a_crowd
#                                 memory that was freed is kept for a while, so that its use is noticed
#   the_census_names_what_is_left
#                                 it is about mappings too, and those are not counted: the sanitizer makes its own
#   a_fault_that_is_no_overflow_ends_the_process_as_ever, an_overflow_without_the_report_still_ends_the_process
#                                 the sanitizer ends the process in its own way
readonly ADDRESS_SKIPPED=(
    waiting_takes_little_stack ten_thousand_timeouts_at_once
    a_futex_wait_without_a_thread_is_not_queued_behind_another
    a_hundred_thousand_tasks_in_sequence_leave_memory_flat stacks_give_their_memory_back_after_a_crowd
    the_census_names_what_is_left
    a_fault_that_is_no_overflow_ends_the_process_as_ever an_overflow_without_the_report_still_ends_the_process
)
readonly ATTACKS=(
    cancel closing coro_soundness coro_soundness2 fork kill limits queue_kill queue_soundness queue_soundness2 soundness
    spares teardown
)
# What threads have in common, and what they do to one another.
readonly THREAD_TESTS=(
    channels embed events files fixed_files futex offload poller poller_system queue_cancel queue_kill queue_remote
    queue_soundness remote signal sync_shared waiting
)
# What cannot pass with ThreadSanitizer:
#   a_hundred_thousand_tasks_from_four_threads_all_run, pooled_bytes_are_nobody_elses, reentrant_everything
#                                 it is too slow for the time that these tests give themselves
#   a_child_that_ends_is_a_signal, a_waiting_stream_is_woken, all_streams_for_a_signal_see_it, ctrl_c_waits_for_one,
#   each_of_many_signals_wakes_its_waiter
#                                 it calls a handler only when the thread that was given the signal makes a call that it
#                                 knows, and here all wait in calls that it does not: `io_uring_enter`, and the futex of
#                                 the standard library
#   a_forked_child_sees_its_own_signals
#                                 it lets no child of a process with threads start any
readonly THREAD_SKIPPED=(
    a_hundred_thousand_tasks_from_four_threads_all_run pooled_bytes_are_nobody_elses reentrant_everything
    a_child_that_ends_is_a_signal a_waiting_stream_is_woken all_streams_for_a_signal_see_it ctrl_c_waits_for_one
    each_of_many_signals_wakes_its_waiter a_forked_child_sees_its_own_signals
)

die() {
    echo "check-sanitizers: $*" >&2
    exit 2
}

# Sets `filter` to the arguments that leave out the tests that are given.
leave_out() {
    local test
    filter=()
    for test in "$@"; do
        filter+=(--skip "$test")
    done
    echo "== left out: ${*:-nothing}"
}

check_address() {
    with_address --examples --lib --tests
}

check_attacks() {
    # shellcheck disable=SC2046
    with_address $(printf -- '--test %s ' "${ATTACKS[@]}")
}

# with_address TARGET...
with_address() {
    local filter target=(--target "$TARGET" --features corosensei/sanitizer)
    # Leaks are not looked for: some tests forget what they have, on purpose.
    # corosensei tells the sanitizer of a change of stacks only with that feature. It does not give back the second stacks
    # by which the use of a frame after its return is noticed, several GB in some tests.
    local -x ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 RUSTFLAGS=-Zsanitizer=address
    local -x CARGO_TARGET_DIR=$BUILD/address
    leave_out "${ADDRESS_SKIPPED[@]}"
    if [[ $1 == --examples ]]; then
        # Some tests run them.
        cargo build --examples "${target[@]}" || return
        shift
    fi
    cargo test --no-fail-fast "$@" "${target[@]}" -- "${filter[@]}"
}

check_thread() {
    local test root flags filter tests=()
    [[ -d /usr/lib/rustlib/src && -x /usr/bin/rustc && -x /usr/bin/cargo ]] ||
        die "thread needs the standard library's source: apt-get install rustc-web cargo-web rust-web-src"
    for test in "${THREAD_TESTS[@]}"; do
        tests+=(--test "$test")
    done
    leave_out "${THREAD_SKIPPED[@]}"
    # Debian has the source, and rustup the runtime and a linker that can read it.
    root=$(rustc --print sysroot)/lib/rustlib/$TARGET
    flags="-Zsanitizer=thread -Zexternal-clangrt -Clink-arg=-B$root/bin/gcc-ld -Clink-arg=-fuse-ld=lld"
    flags+=" -Clink-arg=-Wl,--whole-archive,$(echo "$root"/lib/librustc-*_rt.tsan.a),--no-whole-archive"
    flags+=" -Clink-arg=-Wl,--no-as-needed,-lm,-lc"
    RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTFLAGS=$flags CARGO_TARGET_DIR=$BUILD/thread \
        /usr/bin/cargo test -Zbuild-std=std,panic_unwind,test --no-fail-fast --target "$TARGET" --lib "${tests[@]}" \
        -- "${filter[@]}"
}

main() {
    local what failed=0 summary=() all=("$@")
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    BUILD=${CARGO_TARGET_DIR:-$PWD/target/sanitizers}
    # Lets a stable compiler take the unstable options. No backtraces: with ThreadSanitizer each takes seconds.
    export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0
    ((${#all[@]})) || all=(address thread)
    for what in "${all[@]}"; do
        [[ $what =~ ^(address|thread|attacks)$ ]] || die "unknown $what; there are address, thread and attacks"
        ls "$(rustc --print sysroot)/lib/rustlib/$TARGET/lib/"librustc-*_rt.?san.a >/dev/null 2>&1 ||
            die "this toolchain has no sanitizers; rustup's have"
        SECONDS=0
        echo "== $what"
        if "check_$what"; then
            summary+=("$what: passed, $SECONDS s")
        else
            summary+=("$what: FAILED, $SECONDS s")
            failed=1
        fi
    done
    echo "== summary"
    printf '%s\n' "${summary[@]}"
    return "$failed"
}

main "$@"
