# Runs start.py with the Python that Ray itself has on this machine; `python` may be another, or none.
# Usage: start.sh PID ARGUMENTS, where PID is a process of Ray's.
ray=$1
shift
prefix=$(sed -n 's|^[^/]*\(/.*\)/lib/python[^/]*/[a-z]*-packages/ray/_raylet\.so$|\1|p' "/proc/$ray/maps" 2>/dev/null | head -n 1)
for python in "${prefix:-/usr}/bin/python" "${prefix:-/usr}/bin/python3" "$(readlink "/proc/$ray/exe" 2>/dev/null)" python python3; do
    if [ -n "$python" ] && command -v -- "$python" >/dev/null 2>&1 && "$python" -c 'import ray' >/dev/null 2>&1; then
        exec "$python" start.py "$@"
    fi
done
echo "error: no Python with Ray is found on $(hostname): put that of the cluster first in PATH before ray start" >&2
exit 2
