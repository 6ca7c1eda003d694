# shellcheck shell=bash
# What the scripts beside this file share: the root, a Python, the virtual environments, tools of the system.
# Written for bash 3.2 (macOS) and later. Nothing here changes the working directory.

ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
PACKAGES=() # Debian packages that need() found wanting
HINTS=''    # and the same for a person to read

export PYTHONUTF8=1 # as the files here are: pip and the tests fail over a path or a file in another locale

say() { printf '%s\n' "$*" >&2; }
die() {
	say "$@"
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

# attempt WHAT COMMAND...: runs it in silence. When it fails, this is the end, and a line says why; only a
# failure that nobody foresaw is shown in the command's own words.
attempt() {
	local what=$1 output
	shift
	trap 'die "$what was interrupted. The next run starts over."' INT
	if output=$("$@" 2>&1 </dev/null); then
		trap - INT
		return
	fi
	case $output in
	*"No space left on device"* | *"Disk quota exceeded"* | *ENOSPC* | *EDQUOT*)
		die "$what failed: the disk is full." ;;
	*"Failed to establish a new connection"* | *"onnection refused"* | *"name resolution"* | *"Failed to resolve"* | \
		*"ould not resolve"* | *"ould not connect"* | *"ailure resolving"* | *"timed out"* | \
		*ECONNREFUSED* | *ENOTFOUND* | *EAI_AGAIN* | *ETIMEDOUT* | *ENETUNREACH*)
		die "$what failed: the package index cannot be reached." ;;
	esac
	die "$what failed:"$'\n'"$output"
}

# One at a time: a lock on this very file, held by descriptor 9 until unlock or exit. Python takes it,
# because macOS has no flock command; the lock belongs to the descriptor and outlives that process.
lock() {
	[ -w "$ROOT" ] || die "$ROOT cannot be written to, and what is to be installed belongs there."
	exec 9<"$ROOT/scripts/lib.sh"
	"$1" -c 'if True:
		import fcntl, signal, sys
		signal.signal(signal.SIGINT, signal.SIG_DFL)
		try:
			fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
		except BlockingIOError:
			print("Waiting for another installation to end", file=sys.stderr)
			fcntl.flock(9, fcntl.LOCK_EX)'
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
	# shellcheck disable=SC2016
	attempt "Installing $*" env LC_ALL=C DEBIAN_FRONTEND=noninteractive sh -c \
		'apt-get -qq update && apt-get -qq install -y --no-install-recommends "$@"' sh "$@"
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

# pip_install PYTHON LIST: The list is the whole truth. Without --no-deps pip asks the index about every dependency
# that is spelled with an extra, and a release made after the list breaks a fresh clone. What has no wheel is built by
# the list's own setuptools, and nothing else is built: pip would get the newest releases of the build tools.
pip_install() {
	local install=("$1" -m pip --quiet --disable-pip-version-check --no-input install --no-deps --require-hashes
		--only-binary :all: --no-binary forbiddenfruit --no-build-isolation)
	if grep -q '^setuptools==' "$2"; then "${install[@]}" --requirement <(sed -n '/^setuptools==/,/[^\\]$/p' "$2"); fi &&
		"${install[@]}" --requirement "$2"
}

# What an environment holds is told by marks in it: a copy of each list that was installed, and `whole`, which is not
# there while something is being installed. Current is one whose lists are those of this checkout, and whose Python
# starts and sees its packages (an upgrade of the system's Python breaks that).
current() {
	local mark
	[ -e "$1/whole" ] || return
	for mark in "$1"/requirements*.txt; do
		cmp -s "$ROOT/${mark##*/}" "$mark" || return
	done
	"$1/bin/python" -c 'import pip' 2>/dev/null
}
installed() { [ -e "$2/$1" ] && current "$2"; }

# environment LIST [DIRECTORY]: makes .venv, or another directory, hold what is listed. Silent when it does already.
environment() {
	local list=$1 venv=${2:-$VENV} python package
	installed "$list" "$venv" && return
	python=$(find_python)
	lock "$python"
	if ! installed "$list" "$venv"; then
		say "Installing $list into ${venv##*/}"
		# A current one grows. Any other is made anew: half of a package that pip takes for installed, or a package
		# that is no longer listed, would stay in it for good.
		if ! current "$venv"; then
			if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
				package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
				can_apt || die "This Python makes no virtual environments. As root: apt-get install $package"
				apt_install "$package"
			fi
			rm -f "$venv/whole"
			# In two steps, because venv keeps to itself what ensurepip says of a failure.
			attempt "Making ${venv##*/}" "$python" -m venv --clear --without-pip "$venv"
			attempt "Making ${venv##*/}" "$venv/bin/python" -m ensurepip --upgrade --default-pip
		fi
		rm -f "$venv/whole"
		attempt "Installing $list" pip_install "$venv/bin/python" "$ROOT/$list"
		attempt "Checking $list" "$venv/bin/python" -m pip --disable-pip-version-check check
		cp "$ROOT/$list" "$venv/$list"
		: >"$venv/whole"
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
			rm -f "$ROOT/$directory/node_modules/installed.json"
			attempt "Installing Node's packages" npm --prefix "$ROOT/$directory" ci --no-audit --no-fund
			cp "$ROOT/$directory/package-lock.json" "$ROOT/$directory/node_modules/installed.json"
		fi
		unlock
	done
}

# What only the tests of the examples need, and is larger than all the rest.
examples() {
	environment requirements-examples.txt "$ROOT/.venv-examples"
	node_packages examples
}

# build_wheel DIRECTORY: the wheel of this checkout, with the pinned tools of the development environment.
build_wheel() { (cd "$ROOT" && attempt "Building the wheel" "$PYTHON" -m build --no-isolation --wheel --outdir "$1"); }
