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
# It names this folder and this pyproject.toml: a virtual environment cannot be moved.
set_up() {
    stamp=.venv/.whole
    extra=${1:+[$1]}
    whole="$(pwd) $(cksum <pyproject.toml)"
    made=$({ .venv/bin/python -c '' && cat "$stamp"; } 2>/dev/null) || made=
    case $made in
    "$whole $extra" | "$whole [dev]") return ;;
    "$whole "*) ;; # whole, only without the extra
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
    printf '%s\n' "$whole $extra" >"$stamp"
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
