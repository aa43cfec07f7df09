"""Django Channels."""

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

from wsfast.asgi import of

settings.configure(DEBUG=False, SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
django.setup()


class Echo(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept(self.scope["subprotocols"][0] if self.scope["subprotocols"] else None)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "close":
            await self.close(4000, "asked to")
        elif text_data == "of":
            of(self).send_nowait(f"sent {of(self).counters['messages_sent']}")
        else:
            await self.send(text_data, bytes_data)


urlpatterns = [path("", lambda request: HttpResponse("http"))]
app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter([path("ws", Echo.as_asgi())])})
