"""Before an engine is loaded: does it fit this machine?"""

from .checking import Preflight, check, check_all, require_match, require_whole

__all__ = ["Preflight", "check", "check_all", "require_match", "require_whole"]
