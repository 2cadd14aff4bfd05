"""An example to copy: OpenAI's chat completions through the Vastar runtime.

`connector.py` is the connector, `scenes.py` three things to do with it, `config.py` and `cli.py`
make a program of it: `python -m tools.openai_connector --help`.
"""

from tools.openai_connector.connector import Message, OpenAIConnector

__all__ = ["Message", "OpenAIConnector"]
