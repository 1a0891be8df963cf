import logging
import os

__version__ = "0.1.0"

# epath then reads gs:// through gcsfs; TensorFlow takes 13 s to import and logs while it does.
os.environ.setdefault("EPATH_USE_TF", "0")
# What gcsfs gives up on is raised too, and said in one line.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
