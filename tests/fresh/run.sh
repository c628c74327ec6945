#!/usr/bin/env bash
# Proves README's two commands on a machine that has nothing: a bare Debian (debootstrap) with
# python3, pip and make, as root and as a plain user, and then builds and runs the Dockerfile
# there with a read-only root, without a container engine. All of it happens in memory and in
# namespaces of its own, so that nothing stays behind, however it ends; the network is the host's.
#
#   FRESH_FOR="root plain image"   which of the three (default: all)
#   FRESH_TESTS="tests/unit"       which tests `make test` gets (default: all)
#   FRESH_MIRROR=URL               where debootstrap gets Debian (default: as apt does)
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
cd "$tree"
. tests/fresh/steps.sh

suite=bookworm
cache=${XDG_CACHE_HOME:-$HOME/.cache}/quota-gateway
tarball=$cache/$suite-$(uname -m).tar

first_s=90 second_s=3 # from `make run` to ready, on 2 cores
summary=()

need_tools() {
    [ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root: sudo make fresh"
    for tool in debootstrap curl unshare chroot ip; do
        command -v $tool >/dev/null || fail "$tool is missing: apt-get install $tool"
    done
}

# The bare root, kept as a tarball outside the tree: made once, about a minute.
make_tarball() {
    [ -e "$tarball" ] && return
    mkdir -p "$cache"
    local mirror=${FRESH_MIRROR:-} fresh
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' \
        'Created-By: Packages' | awk -v suite=$suite '$2 == suite {print $1; exit}')
    fresh=$(mktemp -d "$cache/making.XXXXXX")
    echo "making a bare Debian ($suite) in $cache"
    # shellcheck disable=SC2086
    debootstrap --variant=minbase --include=python3,python3-pip,make $suite "$fresh" $mirror \
        >"$cache/debootstrap.log" 2>&1 || fail "debootstrap failed: $cache/debootstrap.log"
    rm -rf "$fresh"/var/cache/apt/archives/*.deb "$fresh"/var/lib/apt/lists/*
    tar -C "$fresh" -cf "$tarball.new" .
    mv "$tarball.new" "$tarball"
    rm -rf "$fresh"
}

# One newcomer: a fresh root, a fresh copy, both commands twice over.
newcomer() {
    local who=$1 first second served tests
    say "$who: make run, the first time"
    unpack_root "$work/root"
    [ "$who" = root ] || in_root root useradd --create-home --home-dir /srv/$who $who
    copy_tree "$work/root/srv/$who/quota-gateway"
    in_root root chown -R "$who" "/srv/$who"
    in_root "$who" sh -c '! python3 -m venv /tmp/probe >/dev/null 2>&1' ||
        fail "the root is not bare: python3 -m venv works in it"

    start_gateway "$who"
    first=$took_s
    served=$(pasted_curl)
    stop_gateway INT
    say "$who: make run, the second time"
    start_gateway "$who"
    second=$took_s
    stop_gateway INT
    within "$first" $first_s && within "$second" $second_s ||
        fail "ready after $first s and $second s; $first_s s and $second_s s are promised"

    say "$who: make test ${FRESH_TESTS:-}"
    in_root "$who" make -C "/srv/$who/quota-gateway" test ARGS="${FRESH_TESTS:-}" |
        tee "$work/tests" || fail "make test failed as $who"
    nothing_left
    tests=$(grep -E '^(=+ )?[0-9]+ passed' "$work/tests") || fail "make test ran no test as $who"
    summary+=("$who: ready after $first s, then $second s; curl: $served; tests: $tests")
    umount "$work/root/proc" "$work/root/dev/shm" "$work/root"
}

# The image: each instruction of the Dockerfile done by hand on a bare root.
image() {
    say "image: the Dockerfile, without an engine"
    unpack_root "$work/base"
    ln -s /usr/bin/python3 "$work/base/usr/local/bin/python" # as the python images call it
    mount -t tmpfs -o size=4g stages "$work/stages"
    python3 -m tests.fresh.image build "$tree" "$work/stages" "$work/base"
    # No network but its own: the image listens on every address it has.
    unshare --net python3 -m tests.fresh.image run "$tree" "$work/stages"
    nothing_left
    summary+=("image: built, ready with a read-only root, healthy, stopped by SIGTERM")
}

if [ "${1:-}" != inside ]; then
    need_tools
    make_tarball
    exec unshare --mount --pid --fork --kill-child --mount-proc \
        bash "$tree/tests/fresh/run.sh" inside
fi

work=$cache/work # an empty folder to the rest of the machine: the mount is ours alone
mkdir -p "$work"
mount -t tmpfs -o size=6g,mode=755 fresh "$work"
mkdir "$work/root" "$work/base" "$work/stages"
for case in ${FRESH_FOR:-root plain image}; do
    case $case in
    image) image ;;
    *) newcomer "$case" ;;
    esac
done
say "proved"
printf '%s\n' "${summary[@]}"
