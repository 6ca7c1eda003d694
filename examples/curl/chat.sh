#!/usr/bin/env bash
# Asks a question and streams the answer: examples/curl/chat.sh [QUESTION]    Ctrl+C stops the model.
set -euo pipefail
gateway=${GATEWAY:-http://127.0.0.1:8000}

jq -n --arg prompt "${1:-Why is the sky blue?}" '{messages: [{role: "user", content: $prompt}]}' |
	curl -sN "$gateway/api/chat" -d @- |
	sed -un '/^event:/,/^$/d; /^{/p; s/^data: //p' |
	jq -rj --unbuffered '.error // .message.content'
echo
