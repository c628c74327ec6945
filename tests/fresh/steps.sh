# The steps of run.sh, which sources this file. They work on $work/root inside namespaces of
# their own: every process that is not one of ours there was left by what was tested.

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'fresh: %s\n' "$*" >&2
    exit 1
}
within() { awk -v a="$1" -v b="$2" 'BEGIN {exit !(a <= b)}'; }

newcomers_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

unpack_root() { # into a mount of its own, with what the machine needs to reach its packages
    local root=$1 file
    mount -t tmpfs -o size=4g,mode=755 root "$root"
    tar -C "$root" -xf "$tarball"
    mkdir -p "$root/proc" "$root/dev/shm"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o size=1g shm "$root/dev/shm"
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ -e $file ] && cp --dereference $file "$root$file"
    done
    if [ -e "${HOME:-/}/.config/pip/pip.conf" ] && [ ! -e /etc/pip.conf ]; then
        cp "$HOME/.config/pip/pip.conf" "$root/etc/pip.conf"
    fi
}

# What pip and TLS are told by the environment; find-links name folders that are not in there.
network_words() { env | grep -iE '^(PIP_[A-Z_]+|[A-Z]+_CERT(_FILE|_DIR)?|[a-z]+_proxy)=' |
    grep -v '^PIP_FIND_LINKS=' || true; }

in_root() { # USER COMMAND...: in the bare root, with a newcomer's environment
    local who=$1 words
    shift
    mapfile -t words < <(network_words)
    chroot --userspec="$who" "$work/root" env -i "PATH=$newcomers_path" HOME="/srv/$who" \
        LANG=C.UTF-8 "${words[@]}" "$@"
}

copy_tree() { # what git tracks or would track, as it stands now
    mkdir -p "$1"
    git -C "$tree" -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [ -e "$tree/$file" ] && printf '%s\0' "$file"; done |
        tar -C "$tree" --null -T - -cf - | tar -C "$1" --no-same-owner -xf -
}

# `make run` as if typed: a process group of its own, so that Ctrl-C reaches all of it.
start_gateway() {
    local who=$1 began deadline
    began=$(date +%s.%N)
    deadline=$((SECONDS + 180))
    set -m
    in_root "$who" make -C "/srv/$who/quota-gateway" run >"$work/screen" 2>&1 </dev/null &
    gateway=$!
    set +m
    until grep -q '^ready ' "$work/screen"; do
        kill -0 $gateway 2>/dev/null || fail "make run ended as $who: $(cat "$work/screen")"
        [ $SECONDS -lt $deadline ] || fail "not ready in 180 s as $who: $(cat "$work/screen")"
        sleep 0.05
    done
    took_s=$(awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f", b - a}')
    # The screen for people comes a moment after the line for programs.
    until grep -q '^Ctrl-C' "$work/screen" || [ $SECONDS -ge $deadline ]; do sleep 0.05; done
    cat "$work/screen"
}

# The curl line of the screen, exactly as printed; only the answer's status is asked for besides.
pasted_curl() {
    local line status
    line=$(sed -e ':join' -e '/\\$/{N;s/\\\n//;bjoin' -e '}' "$work/screen" |
        sed -n 's/^[[:space:]$]*\(curl .*\)/\1/p' | head -n 1)
    [ -n "$line" ] || fail "no curl line on the screen"
    status=$(bash -c "$line --silent --output $work/answer --write-out '%{http_code}'")
    [ "$status" = 200 ] || fail "the curl line got $status: $(cat "$work/answer")"
    echo "$status"
}

stop_gateway() { # SIGNAL: to the whole group, as a terminal sends it
    local deadline=$((SECONDS + 20))
    kill -"$1" -- "-$gateway"
    while kill -0 "$gateway" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || fail "still running 20 s after SIG$1"
        sleep 0.05
    done
    wait "$gateway" 2>/dev/null || true
    nothing_left
}

nothing_left() { # in this process namespace there is only this script
    local deadline=$((SECONDS + 5)) left
    while left=$(strangers) && [ -n "$left" ]; do
        [ $SECONDS -lt $deadline ] || fail "left running: $left"
        sleep 0.1
    done
}

strangers() { # every process but this shell, its children for this question, and the dead
    local id state
    for folder in /proc/[0-9]*; do
        id=${folder#/proc/}
        [ "$id" = 1 ] || [ "$id" = $$ ] || [ "$id" = $BASHPID ] && continue
        state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "$folder/status" 2>/dev/null) || continue
        [ -z "$state" ] || [ "$state" = Z ] || tr '\0' ' ' <"$folder/cmdline" 2>/dev/null || true
    done
}
