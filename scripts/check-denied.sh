#!/usr/bin/env bash
# What must work where little is allowed: with little memory that may be locked, with 64 descriptors, without marks for
# guards, and where a panic ends the process. Works from a fresh clone; needs Linux. The tests that have to do with a
# limit are run under it, not all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0

cargo build --quiet --example deny
programs=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/examples
deny=$programs/deny

# under LIMIT TEST... [-- ARGUMENT...]: the tests in these files, each program of them under the limit, cargo not.
under() {
    local limit=$1 tests=()
    shift
    while (($# > 0)) && [[ $1 != -- ]]; do
        tests+=(--test "$1")
        shift
    done
    echo "== $limit"
    cargo test --no-fail-fast --config "target.'cfg(all())'.runner=['$deny', '$limit']" "${tests[@]}" "$@"
}

# No locked memory at all: no ring can be made, as on a kernel that counts rings there (before 5.12, and 6.18 again), and
# the automatic choice is the emulation. Left out: two tests set a limit of their own, which is higher.
under memlock=0 fixed_bufs queue queue_pools queue_multi net_multishot batches teardown -- \
    --skip more_memory_than_may_be_locked --skip without_memory_to_lock

# 64 KiB, a common limit: one or two rings. Programs, each with one, work on whatever they get. Tests make and drop many:
# the kernel gives the memory of a ring back some time after it was closed, so which of them gets one is chance.
echo "== memlock=64"
cargo build --quiet --examples
for program in immediate "echo_server --selftest" coro; do
    # shellcheck disable=SC2086 # words
    "$deny" memlock=64 "$programs"/$program | tail -2
done

# Left out is what holds more than 64 descriptors: by name below; tests/fixed_files.rs, for a table may not be larger than
# the limit; and some tests of other files that are not named here (closing, layers, queue_multi, queue_kill,
# queue_soundness2, scheduling, select, teardown). All others pass as well, which was tried once.
under nofile=64 semantics timeouts waiting files pipes sockets messages tasks scopes cancel net net_unix kill \
    queue queue_cancel queue_pools queue_remote net_multishot stacks embed -- \
    --skip twenty_cancels_meet --skip connections_that_are_ready_cost --skip idle_connections_hold_no_buffer \
    --skip it_does_not_run_far_ahead --skip it_goes_on_when_there_are_descriptors_again --skip many_connections_come_in

# The guards of stacks as mappings of their own, as they are before Linux 6.13.
under marks stacks park_stack tasks

echo "== panic = \"abort\""
cargo run --quiet --profile abort --example immediate | tail -2 | head -1
status=0
said=$(cargo run --quiet --profile abort --example sick_task 2>&1) || status=$?
# 128 + SIGABRT
if [[ $status != 134 || $said != *"this task is sick"* || $said == *"the others go on"* ]]; then
    echo "a panicking task has not aborted the process: $status, $said"
    exit 1
fi
echo "a panicking task ends the process, with its message"
