#!/bin/sh
# Builds dlsm from this checkout and installs it, with the Debian packages it needs; see --help.
set -eu

usage() {
  cat <<'END'
Usage: ./install.sh [--prefix DIR] [--uninstall]
       ./install.sh --test-tools

Builds dlsm from this checkout and installs it as DIR/bin/dlsm. What is missing on the way is installed
first: Debian packages (as root only) and the Node packages of package-lock.json, in this folder.

  --prefix DIR   where to install; /usr/local for root, ~/.local for everybody else
  --uninstall    remove DIR/bin/dlsm again, and say what is left
  --test-tools   build and install nothing; have what the tests need: Node packages, Debian packages
  --help         show this
END
}

# PROGRAM:PACKAGE; a word that starts with "lib" and has ".so." in it is a shared library.
for_build='npm:npm libatomic.so.1:libatomic1 libstdc++.so.6:libstdc++6'
for_use='tgtd:tgt tgtadm:tgt blkid:util-linux nsenter:util-linux mount:mount'
for_demo='qemu-io:qemu-utils nbdinfo:libnbd-bin nbdcopy:libnbd-bin mkfs.ext4:e2fsprogs'
for_tests='fio:fio losetup:mount setpriv:util-linux sshd:openssh-server ip:iproute2 unshare:util-linux
  nbdfuse:libnbd-bin sqlite3:sqlite3 initdb:postgresql faketime:faketime'

say() { printf '%s\n' "$*"; }
warn() { printf 'install.sh: %s\n' "$*" >&2; }
fail() {
  warn "$*"
  exit 1
}

# --- clean-up: nothing half-made is left, however this ends ---

scratch='' policy='' no_cluster='' half_made=''
clean_up() {
  rm -rf "$scratch"
  rm -f "$policy" "$no_cluster" "$half_made"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command with its output kept back; if it fails, the output is shown.
quietly() {
  [ -n "$scratch" ] || scratch=$(mktemp -d)
  "$@" >"$scratch/log" 2>&1 && return 0
  tail -n 40 "$scratch/log" >&2
  return 1
}

# --- Debian packages ---

is_there() {
  case $1 in
    lib*.so.*) ! command -v ldconfig >/dev/null || ldconfig -p | grep -qF "$1" ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# The packages of those PROGRAM:PACKAGE pairs whose program is missing, each once.
missing() {
  found=''
  for pair in "$@"; do
    is_there "${pair%%:*}" && continue
    case " $found " in *" ${pair#*:} "*) ;; *) found="${found:+$found }${pair#*:}" ;; esac
  done
  say "$found"
}

# ensure_packages "REQUIRED PAIRS" "OPTIONAL PAIRS" WHAT-FOR: installs what is missing. Where that cannot be
# done, says how; a required package is then an error.
ensure_packages() {
  # Unquoted on purpose: lists of words.
  # shellcheck disable=SC2086
  required=$(missing $1) all=$(missing $1 $2)
  [ -n "$all" ] || return 0
  if ! command -v apt-get >/dev/null; then
    reason='there is no apt-get here; install what Debian has in the packages'
  elif [ "$(id -u)" != 0 ]; then
    reason='only root can install packages. As root: apt-get install --no-install-recommends'
  else
    # shellcheck disable=SC2086
    apt_install $all
    return 0
  fi
  [ -z "$required" ] || fail "missing: $all; $reason $all"
  warn "going on without $all ($3); $reason $all"
}

apt_install() {
  say "installing Debian packages: $*"
  export DEBIAN_FRONTEND=noninteractive
  new_services=''
  for service in tgt:tgt openssh-server:ssh postgresql:postgresql; do
    case " $* " in *" ${service%:*} "*) is_installed "${service%:*}" || new_services="$new_services $service" ;; esac
  done
  [ -z "$new_services" ] || hold_services
  case $new_services in *postgresql*) hold_cluster ;; esac

  set -- apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
  is_done=no
  if [ -n "$(find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null)" ]; then
    # Lists that are too old name files that are gone: the second attempt, with new lists, says what is wrong.
    quietly "$@" 2>/dev/null && is_done=yes
  fi
  if [ $is_done = no ]; then
    quietly apt-get update -q -o DPkg::Lock::Timeout=300 && quietly "$@" && is_done=yes
  fi

  for service in $new_services; do
    if is_installed "${service%:*}"; then disable_service "${service#*:}"; fi
  done
  [ $is_done = yes ] || fail "apt-get failed, see above; then run install.sh again"
}

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Debian starts tgt and ssh as services, which listen on every address of the machine, and PostgreSQL. dlsm and its
# tests start daemons of their own and have no use for them, so a service that comes only by this installation is
# not started. One that was there before is not touched. (policy-rc.d: what may start while packages are installed.)
hold_services() {
  [ ! -e /usr/sbin/policy-rc.d ] || return 0
  policy=/usr/sbin/policy-rc.d
  {
    say '#!/bin/sh'
    say "# Made by dlsm's install.sh for the time of one installation."
    for service in $new_services; do
      say "case \$1 in ${service#*:} | ${service#*:}.s*) exit 101 ;; esac"
    done
  } >$policy
  chmod 755 $policy
}

# PostgreSQL's packages make a first database cluster unless they are told not to.
hold_cluster() {
  no_cluster=/etc/postgresql-common/createcluster.d/dlsm.conf
  mkdir -p "${no_cluster%/*}"
  say 'create_main_cluster = false' >$no_cluster
}

disable_service() {
  rm -f "$policy"
  policy=''
  update-rc.d "$1" disable >/dev/null 2>&1 || true
  deb-systemd-helper disable "$1.service" >/dev/null 2>&1 || true
  # Where somebody else's policy-rc.d let it start.
  [ ! -d /run/systemd/system ] || systemctl disable --now "$1.service" >/dev/null 2>&1 || true
  say "the $1 service is off: dlsm does not need it (systemctl enable --now $1)"
}

# --- Node packages, build ---

ensure_node_packages() {
  stamp=node_modules/.package-lock.json
  if [ ! -e $stamp ] || [ -n "$(find package-lock.json -newer $stamp)" ]; then
    say 'installing Node packages'
    # Not npm ci: it would first take everything away from under whatever runs in this folder.
    quietly npm install --no-save --ignore-scripts --loglevel=error || fail 'npm install failed, see above'
  fi
  # npm 9 makes no link for Node: it takes the package of another processor, left out here, for its maker.
  if [ ! -e node_modules/.bin/node ]; then quietly npm rebuild --ignore-scripts --loglevel=error || true; fi
  quietly node_modules/.bin/node --version || fail 'the Node of node_modules does not start here, see above'
}

build() {
  say 'building dlsm'
  npm run --silent build || fail 'npm run build failed, see above'
}

# --- the binary ---

install_binary() {
  [ ! -d "$target" ] || fail "$target is a folder"
  quietly mkdir -p "$prefix/bin" || fail "cannot make $prefix/bin"
  half_made=$prefix/bin/.dlsm.$$
  quietly cp dist/dlsm "$half_made" || fail "cannot write to $prefix/bin"
  chmod 755 "$half_made"
  version=$("$half_made" --version) || fail 'the dlsm that was built does not start'
  mv -f "$half_made" "$target"
  half_made=''
  say "installed: $target ($version)"
  case :$PATH: in *:"$prefix/bin":*) ;; *) say "$prefix/bin is not in PATH" ;; esac
}

uninstall() {
  if [ -e "$target" ]; then
    users=$(processes_of "$target")
    [ -z "$users" ] || fail "dlsm is running (pid$users): let it finish, or abort it, and try again"
    quietly rm -f "$target" || fail "cannot remove $target"
    say "removed: $target"
  else
    say "$target is not there"
  fi
  if [ "$(id -u)" = 0 ]; then state=/var/lib/dlsm; else state=${XDG_STATE_HOME:-$HOME/.local/state}/dlsm; fi
  state=${DLSM_STATE_DIR:-$state}
  [ ! -e "$state" ] || say "left: $state (the state of migrations)"
  say "left: Debian packages, and node_modules and dist in $PWD"
}

# The ids of the processes that run this program, or one that was in its place before an update.
processes_of() {
  real=$(readlink -f "$1")
  for link in /proc/[0-9]*/exe; do
    case $(readlink "$link") in
      "$real" | "$real (deleted)") link=${link#/proc/} && printf ' %s' "${link%/exe}" ;;
    esac
  done
}

# --- the command line ---

usage_error() {
  warn "$* (./install.sh --help shows what there is)"
  exit 2
}

set_prefix() {
  case $1 in
    '' | -*) usage_error '--prefix needs a folder' ;;
    /*) prefix=$1 ;;
    *) prefix=$PWD/$1 ;;
  esac
}

action=install prefix=''
while [ $# -gt 0 ]; do
  case $1 in
    --prefix)
      set_prefix "${2-}"
      shift
      ;;
    --prefix=*) set_prefix "${1#*=}" ;;
    --uninstall | --test-tools)
      [ "$action" = install ] || usage_error "one of --uninstall and --test-tools at a time"
      action=${1#--}
      ;;
    --help)
      usage
      exit 0
      ;;
    *) usage_error "unknown argument $1" ;;
  esac
  shift
done
if [ -z "$prefix" ]; then
  if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=${HOME:?}/.local; fi
fi
target=$prefix/bin/dlsm

# Programs of root are looked for too: a plain user's PATH may lack their folders. PostgreSQL's are in nobody's.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
for folder in /usr/lib/postgresql/*/bin; do PATH=$PATH:$folder; done
cd "$(dirname "$0")"
[ -f package-lock.json ] || fail "$PWD is not a checkout of dlsm"

case $action in
  install)
    ensure_packages "$for_build $for_use" "$for_demo" 'dlsm demo needs it'
    ensure_node_packages
    build
    install_binary
    ;;
  test-tools)
    ensure_packages "$for_build" "$for_use $for_demo $for_tests" 'some tests are skipped'
    ensure_node_packages
    ;;
  uninstall) uninstall ;;
esac
