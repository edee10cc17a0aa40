"""Patterns of tokens and keys with a recognisable form."""

from __future__ import annotations

import re

# Each begins with what its issuer begins it with; lengths are the shortest that are issued, or
# less.
_BEGINNINGS = (
    *("hf_[A-Za-z0-9]{16,}", "api_org_[A-Za-z0-9]{16,}", r"wandb_v\d+_[A-Za-z0-9_\-]{16,}"),
    *("gh[pousr]_[A-Za-z0-9]{20,}", "github_pat_[A-Za-z0-9_]{20,}"),
    *(
        r"gl(?:pat|dt|rt|cbt|ptt|soat|imt|agent|oas)-[A-Za-z0-9_\-.]{20,}",
        r"ATATT3x[A-Za-z0-9_\-=]{20,}",
    ),
    *(
        r"sk-(?:[a-z]+-)?[A-Za-z0-9]{20,}",
        r"sk-(?=[a-z0-9_\-]*[A-Z])(?=[A-Za-z_\-]*\d)[A-Za-z0-9_\-]{32,}",
    ),
    *(
        "A(?:KI|SI)A[0-9A-Z]{16}(?![0-9A-Z])",
        r"AIza[A-Za-z0-9_\-]{35}",
        r"ya29\.[A-Za-z0-9_\-.]{20,}",
    ),
    *(
        r"GOCSPX-[A-Za-z0-9_\-]{20,}",
        r"xox[abeoprs]-[A-Za-z0-9\-.]{10,}",
        r"xapp-[A-Za-z0-9\-]{20,}",
    ),
    *("[rs]k_(?:live|test)_[A-Za-z0-9]{16,}", r"SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}"),
    *("npm_[A-Za-z0-9]{30,}", r"pypi-[A-Za-z0-9_\-]{40,}", r"dckr_(?:pat|oat)_[A-Za-z0-9_\-]{20,}"),
    *(
        "r8_[A-Za-z0-9]{30,}",
        "gsk_[A-Za-z0-9]{30,}",
        "xai-[A-Za-z0-9]{30,}",
        "pplx-[A-Za-z0-9]{30,}",
    ),
    *(
        r"nvapi-[A-Za-z0-9_\-]{30,}",
        "KGAT_[A-Za-z0-9]{20,}",
        "dapi[0-9a-f]{32}",
        "do[opr]_v1_[0-9a-f]{40,}",
    ),
    *(
        r"hv[sbr]\.[A-Za-z0-9_\-]{20,}",
        r"sntry[su]_[A-Za-z0-9_\-+/=]{20,}",
        "lin_api_[A-Za-z0-9]{20,}",
    ),
    *("ntn_[A-Za-z0-9]{20,}", r"dp\.[a-z]{2,5}\.[A-Za-z0-9]{20,}", "AGE-SECRET-KEY-1[0-9A-Z]{20,}"),
    *("shp(?:at|ss|ca|pa)_[0-9a-fA-F]{20,}", r"\d{8,12}:AA[A-Za-z0-9_\-]{30,}"),
    # a web token, and settings in base64 that begin like one
    *(
        r"eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*",
        r"eyJhcGlf[A-Za-z0-9_\-+/=]{20,}",
    ),
)
_PRIVATE_KEY = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)"
_HOOKS = (
    r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[A-Za-z0-9/_\-]{16,}",
    r"(?<=/api/webhooks/)\d+/[A-Za-z0-9_\-]{16,}",
)
SHAPES = (
    *(re.compile(rf"(?<![A-Za-z0-9]){beginning}") for beginning in _BEGINNINGS),
    *(re.compile(hook) for hook in _HOOKS),
    re.compile(_PRIVATE_KEY, re.DOTALL),
)
# 40 hex digits alone are also a revision, so such a key is known by the word before it
LABELLED = re.compile(
    r"""(?ix) ((?:api[_-]?key | access[_-]?key | account[_-]?key | auth[_-]?token | \btoken | _token
        | secret | password | passwd | passphrase | \bpwd | authorization | signature | [?&;]sig
        | credential | set-cookie | \bcookie | wandb[ _-]key)  ["']? \s* (?:=|:|\bis\b) \s* ["']?
        (?:(?:bearer|basic|token)\s+)? | \bbearer\s+ ) ([^\s"',;&}\])]{8,})"""
)
# user:password@ of an address, and a user that is a token
LOGIN = re.compile(r"(?<=://)[^\s/:@]*:([^\s/]+)(?=@)|(?<=://)([^\s/:@]{20,})(?=@)")
