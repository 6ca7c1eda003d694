"""A chat in Streamlit: streamlit run app.py"""

import json
import os
from collections.abc import Iterator

import httpx
import streamlit as st
from httpx_sse import connect_sse

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8000")


def answer(messages: list[dict[str, str]]) -> Iterator[str]:
    """The pieces of the answer, or the error's message."""
    url, body = f"{GATEWAY}/api/chat", {"messages": messages}
    with httpx.Client(timeout=30) as client, connect_sse(client, "POST", url, json=body) as source:
        if source.response.is_error:
            yield json.loads(source.response.read())["error"]
            return
        for event in source.iter_sse():
            if event.event == "message" and event.data:
                line = json.loads(event.data)
                yield line["error"] if "error" in line else line["message"]["content"]


st.title("Ask")
messages = st.session_state.setdefault("messages", [])
for message in messages:
    st.chat_message(message["role"]).write(message["content"])
if prompt := st.chat_input("Your question"):
    messages.append({"role": "user", "content": prompt})
    st.chat_message("user").write(prompt)
    text = st.chat_message("assistant").write_stream(answer(messages))
    messages.append({"role": "assistant", "content": text})
