# timeout: 240

# Makes a virtual environment with pip in it and runs both.
set -e
python3 -m venv /root/venv
. /root/venv/bin/activate
python -c 'import sys; print(sys.prefix, sys.prefix != sys.base_prefix)'
pip --version
pip list --format=freeze --disable-pip-version-check
ls /root/venv/bin | sort
