"""The schema of chat tasks, and the chat templates that they can name. Imports no torch."""

from pydantic import field_validator

from tasks.config import TaskConfig
from tasks.names import nearest

PLAIN = """\
{{ bos_token or '' }}{% for message in messages %}
{{ '### ' + message['role'].capitalize() + ':\\n' + message['content'] | trim }}
{%- if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"""
CHATML = """\
{{ bos_token or '' }}{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TEMPLATES = {"plain": PLAIN, "chatml": CHATML}
"""name -> a chat template in Jinja, as tokenizers have them."""


class ChatConfig(TaskConfig):
    """Column `messages` has conversations: lists of `role` and `content` (OpenAI), or of `from` and `value`
    (ShareGPT). What the assistant says is learnt and scored, and so are its `tool_calls` (OpenAI).

    `tools`: the column of the functions that a row offers, as JSON schemas.
    `template`: a chat template in place of the tokenizer's own, as a key of TEMPLATES or as text in Jinja. In
    a task of the user's own it can be a file that ends in .jinja.
    """

    messages: str
    tools: str | None = None
    template: str | None = None

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.messages, *([self.tools] if self.tools else []))

    @field_validator("template")
    @classmethod
    def _renders(cls, template: str | None) -> str | None:
        if template is not None and template not in TEMPLATES and "{" not in template:
            raise ValueError(
                f'no template "{template}", and no text in Jinja{nearest(template, TEMPLATES)}'
            )
        return template
