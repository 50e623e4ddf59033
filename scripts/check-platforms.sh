#!/usr/bin/env bash
# Checks platforms other than the one it runs on:
#   aarch64-apple-darwin, x86_64-unknown-freebsd   library and tests are type-checked; nothing is linked or run
#   aarch64-unknown-linux-gnu                      the test suite runs in qemu's user mode emulation, which has no
#                                                  io_uring, so it is the emulation on epoll and poll that is tested
#
#   scripts/check-platforms.sh             all of them
#   scripts/check-platforms.sh TARGET...   only these
#   CARGO_TARGET_DIR                       where to build; target/platforms if not set
#
# Made for root on Debian 12, amd64. It installs these packages with apt-get, unless they are installed:
#   rustc-web cargo-web     a compiler; Debian carries it for its browsers, and keeps it new
#   rust-web-src            the standard library's source for exactly that compiler. Debian has no compiled standard
#                           library for these targets, so it is built for each, in about a minute, and kept in the
#                           target directory
#   gcc-aarch64-linux-gnu libc6-dev-arm64-cross   the linker and libc for aarch64
#   qemu-user-static        runs the tests
# The standard library's own dependencies come from crates.io, as the crate's do.
set -euo pipefail

readonly PACKAGES=(
    rustc-web cargo-web rust-web-src gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
)
readonly CHECKED=(aarch64-apple-darwin x86_64-unknown-freebsd)
readonly EMULATED=aarch64-unknown-linux-gnu
# What cannot pass there, for reasons of qemu's:
#   received_descriptors_do_not_leak   qemu gives the kernel more room for control messages than the program has, and
#                                      leaks the descriptors that it then has no room for
#   a_program_that_cannot_be_executed_is_an_error, neither_zombies_nor_descriptors_are_left,
#   the_standard_streams_are_read_and_written
#                                      qemu makes vfork a fork, so that the parent does not learn why execve failed;
#                                      and what is executed there is for this machine's own processor
#   streams_come_and_go_while_signals_come
#                                      qemu itself crashes in a storm of signals
#   a_process_may_exit_in_an_iterator_while_something_is_in_flight, a_forked_child_sees_its_own_signals
#                                      a forked child of a program with threads may wait for ever in qemu itself; in
#                                      exit() in half of the runs of the first; without qemu none of 100 did
#   a_buffer_that_circulates_is_the_only_one
#                                      qemu has no RWF_NOWAIT, so that reads of files go to workers, whose start allocates
#   the others                         they deny io_uring by a seccomp filter, which qemu cannot set up
readonly SKIPPED=(
    received_descriptors_do_not_leak
    a_ring_that_is_demanded_gives_the_reason
    a_ring_demanded_by_the_environment_gives_the_reason_too
    the_automatic_choice_falls_back_to_the_emulation
    too_little_lockable_memory_falls_back_or_says_which_limit_to_raise
    being_out_of_descriptors_is_told_and_not_hidden_by_a_fallback
    a_program_that_cannot_be_executed_is_an_error
    neither_zombies_nor_descriptors_are_left
    the_standard_streams_are_read_and_written
    streams_come_and_go_while_signals_come
    a_process_may_exit_in_an_iterator_while_something_is_in_flight
    a_forked_child_sees_its_own_signals
    a_buffer_that_circulates_is_the_only_one
)

die() {
    echo "check-platforms: $*" >&2
    exit 2
}

# A value of the system's description of itself.
system() {
    # shellcheck source=/dev/null
    (. /etc/os-release && eval "echo \"\${$1:-}\"")
}

need_debian() {
    [[ -r /etc/os-release ]] || die "this needs Debian 12; there is no /etc/os-release"
    [[ $(system ID) == debian && $(system VERSION_ID) == 12 ]] ||
        die "this needs Debian 12, whose packages it installs; this is $(system PRETTY_NAME)"
    [[ $(dpkg --print-architecture) == amd64 ]] ||
        die "this needs Debian for amd64; this is for $(dpkg --print-architecture)"
}

is_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

install_packages() {
    local package missing=()
    for package in "${PACKAGES[@]}"; do
        is_installed "$package" || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then
        echo "== all packages are installed"
        return
    fi
    [[ $(id -u) == 0 ]] || die "not root, and these packages are missing: ${missing[*]}"
    echo "== installing ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# Debian's programs by their paths: rustup's are often first in PATH, and have no source of this standard library.
setup() {
    local wanted have
    # `-Zbuild-std` is not stable; this makes a stable compiler accept it.
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/platforms}
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    # The tests themselves start their program again by the second one.
    export AIO_TEST_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$AIO_TEST_RUNNER
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$("$RUSTC" --version | cut -d ' ' -f 2)
    [[ $(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1) == "$wanted" ]] ||
        die "the crate needs Rust $wanted, and Debian's rustc-web is $have"
    echo "== $("$RUSTC" --version), building in $CARGO_TARGET_DIR"
}

cargo_std() {
    local command=$1
    shift
    /usr/bin/cargo "$command" -Zbuild-std=std,panic_unwind,test "$@"
}

check() {
    echo "== $1: type-checking library and tests"
    cargo_std check --lib --tests --target "$1"
}

emulate() {
    local test failed=0 skip=()
    for test in "${SKIPPED[@]}"; do
        skip+=(--skip "$test")
    done
    echo "== $1: running unit, integration and documentation tests under qemu"
    echo "== $1: left out: ${SKIPPED[*]}"
    cargo_std test --no-fail-fast --lib --tests --target "$1" -- "${skip[@]}" || failed=1
    cargo_std test --doc --target "$1" || failed=1
    return "$failed"
}

main() {
    local target what failed=0 summary=() targets=("$@")
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    ((${#targets[@]})) || targets=("${CHECKED[@]}" "$EMULATED")
    for target in "${targets[@]}"; do
        [[ " ${CHECKED[*]} $EMULATED " == *" $target "* ]] || die "unknown target $target"
    done
    need_debian
    install_packages
    setup
    for target in "${targets[@]}"; do
        what=check
        [[ $target == "$EMULATED" ]] && what=emulate
        SECONDS=0
        if "$what" "$target"; then
            summary+=("$target: ${what/%e/}ed, passed, $SECONDS s")
        else
            summary+=("$target: ${what/%e/}ed, FAILED, $SECONDS s")
            failed=1
        fi
    done
    echo "== summary"
    printf '%s\n' "${summary[@]}"
    return "$failed"
}

main "$@"
