"""The page's files are served without their comments, as fast to revalidate as before."""

from gateway.web.routes.page import STATIC
from tests.gateways import gateway


async def test_scripts_are_served_without_comments() -> None:
    """Their lines keep their numbers, and a browser that has them is told so."""
    async with gateway("http://127.0.0.1:9") as gw:
        async with gw.session.get(gw.url + "/static/js/tabs.js") as response:
            served = await response.text()
            assert response.headers["Cache-Control"] == "no-cache"
            assert response.headers["Content-Type"].startswith("text/javascript")
            etag = response.headers["ETag"]
        async with gw.session.get(gw.url + "/static/js/tabs.js", headers={"If-None-Match": etag}) as again:
            assert again.status == 304
        async with gw.session.head(gw.url + "/static/js/tabs.js") as head:
            assert head.status == 200
    source = (STATIC / "js/tabs.js").read_text()
    assert "/**" in source
    assert "/**" not in served
    assert served.count("\n") == source.count("\n")
