# shellcheck shell=bash
# What the scripts beside this file share: the root, a Python, the virtual environment, tools of the system.
# Written for bash 3.2 (macOS) and later. Nothing here changes the working directory.

ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
PACKAGES=() # Debian packages that need() found wanting
HINTS=''    # and the same for a person to read

say() { printf '%s\n' "$*" >&2; }
die() {
	say "$@"
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

# One at a time: a lock on this very file, held by descriptor 9 until unlock or exit. Python takes it,
# because macOS has no flock command; the lock belongs to the descriptor and outlives that process.
lock() {
	exec 9<"$ROOT/scripts/lib.sh"
	"$1" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}
unlock() { exec 9<&-; }

# apt_install PACKAGE...: installs, but lets no service start, now or at the next boot.
apt_install() (
	deny=/usr/sbin/policy-rc.d
	say "Installing Debian packages: $*"
	if [ ! -e $deny ]; then
		trap 'rm -f $deny' EXIT
		printf '#!/bin/sh\nexit 101\n' >$deny
		chmod 755 $deny
	fi
	export DEBIAN_FRONTEND=noninteractive
	output=$(apt-get -qq update && apt-get -qq install -y --no-install-recommends "$@" 2>&1) || die "$output"
	for name in "$@"; do
		case $name in
		redis-server | nginx | caddy) ! have systemctl || systemctl --quiet disable "$name" || true ;;
		esac
	done
)

# need COMMAND PACKAGE ELSEWHERE: notes a command that is not there, and how to get it.
need() {
	have "$1" && return
	PACKAGES+=("$2")
	HINTS+="  $1: on Debian 'apt-get install $2', elsewhere $3"$'\n'
}

# Gets what need() noted. Fails when something is still missing and CI is set; says so in any case.
provide() {
	[ ${#PACKAGES[@]} -gt 0 ] || return 0
	if can_apt; then
		apt_install "${PACKAGES[@]}"
	else
		say "Missing, and the tests that need it will fail:"$'\n'"${HINTS%$'\n'}"
		[ -z "${CI:-}" ] || exit 1
	fi
}

find_python() {
	local name
	for name in python3 python3.14 python3.13 python3.12 python3.11; do
		if have $name && $name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			command -v $name
			return
		fi
	done
	die "Python 3.11 or later is needed. Debian: apt-get install python3 python3-venv; macOS: brew install python"
}

# The copy of the requirements in the environment is the mark of a whole installation of them; and the
# environment's Python must start and see its packages (an upgrade of the system's Python breaks that).
installed() { cmp -s "$ROOT/$1" "$VENV/$1" && "$PYTHON" -c 'import pip' 2>/dev/null; }

# environment REQUIREMENTS: makes .venv hold them. Silent when it does already.
environment() {
	installed "$1" && return
	local python package
	python=$(find_python)
	lock "$python"
	if ! installed "$1"; then
		if ! "$PYTHON" -c 'import pip' 2>/dev/null; then
			if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
				package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
				can_apt || die "This Python makes no virtual environments. As root: apt-get install $package"
				apt_install "$package"
			fi
			"$python" -m venv --clear "$VENV"
		fi
		say "Installing $1 into .venv"
		rm -f "$VENV/$1"
		"$PYTHON" -m pip -qq --disable-pip-version-check --no-input install --require-hashes \
			-r "$ROOT/$1" </dev/null
		cp "$ROOT/$1" "$VENV/$1"
	fi
	unlock
}

# node_packages DIRECTORY...: Node's packages there, as their lists have them, when npm is there.
node_installed() { cmp -s "$ROOT/$1/package-lock.json" "$ROOT/$1/node_modules/installed.json"; }
node_packages() {
	local directory
	have npm || return 0
	for directory in "$@"; do
		node_installed "$directory" && continue
		lock "$PYTHON"
		if ! node_installed "$directory"; then
			say "Installing Node's packages into $directory"
			(cd "$ROOT/$directory" && npm ci --silent --no-audit --no-fund && cp package-lock.json node_modules/installed.json)
		fi
		unlock
	done
}

# build_wheel DIRECTORY: the wheel of this checkout, with the pinned tools of the development environment.
build_wheel() { (cd "$ROOT" && "$PYTHON" -m build --no-isolation --wheel --outdir "$1" >"$1/log" 2>&1) || die "$(cat "$1/log")"; }
