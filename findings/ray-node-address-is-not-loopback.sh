#!/bin/sh
# ray 2.60: ray.init(_node_ip_address="127.0.0.1") starts a cluster that listens on all addresses of the machine.
#
# 2026-11-30; Python 3.11, ray 2.60.0, Linux x86-64.
#
# The address is replaced by the machine's outward one (ray._private.services.resolve_ip_for_localhost), and Ray's servers bind to
# loopback alone only where the node's address is 127.0.0.1. Where Ray thinks that there are no clusters, as on macOS, it stays with
# 127.0.0.1: RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 has that on Linux, too. It has to be set before ray is imported, and by every
# process that joins: with it, and only with it, 127.0.0.1:PORT is the address under which the cluster answers.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0 psutil==7.2.2
cat >"$folder/listening.py" <<'PYTHON'
import ipaddress
import psutil
import ray

ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.1")
own = psutil.Process()
open_to_others = {
    (process.name(), one.laddr.ip)
    for process in (own, *own.children(recursive=True))
    for one in process.net_connections("tcp")
    if one.status == psutil.CONN_LISTEN and not ipaddress.ip_address(one.laddr.ip.replace("::ffff:", "")).is_loopback
}
print(ray.util.get_node_ip_address(), sorted(open_to_others))
ray.shutdown()
raise SystemExit(bool(open_to_others))
PYTHON
export RAY_USAGE_STATS_ENABLED=0 RAY_TMPDIR="$folder"
echo "asked for 127.0.0.1:"
if "$folder/venv/bin/python" "$folder/listening.py"; then
    echo "nothing listens on other addresses: this has changed"
    exit 1
fi
echo "and with RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0:"
RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 "$folder/venv/bin/python" "$folder/listening.py"
