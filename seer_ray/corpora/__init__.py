"""Token documents from text, chats and runs."""
