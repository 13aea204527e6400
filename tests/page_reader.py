"""What a page of HTML holds, read by the standard library."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Collects elements, the texts of scripts, and the text that a person sees."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.scripts, self.seen, self.raw = [], [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.raw = tag if tag in ("script", "style") else self.raw
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_endtag(self, tag):
        self.raw = 0 if tag == self.raw else self.raw

    def handle_data(self, data):
        if self.raw == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        elif not self.raw:
            self.seen.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.seen).split())
