"""Answers each request with what Python's parser understood of it, in a field; prints its port."""
import hashlib
import http.client
import http.server

http.client._MAXHEADERS = 200


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def line(self):
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    def exactly(self, size):
        piece = self.rfile.read(size)
        if len(piece) < size:
            raise EOFError
        return piece

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.exactly(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.line().split(b";")[0], 16):
            body += self.exactly(size)
            self.line()
        while self.line().strip():
            pass
        return body

    def answer(self):
        try:
            body = self.body()
        except (EOFError, ValueError):
            self.close_connection = True
            return
        digest = hashlib.sha256(body).hexdigest()
        host = self.headers.get("Host")
        self.send_response(200)
        self.send_header("x-understood", f"{self.command} {self.path} {host} {len(body)} {digest}")
        self.send_header("content-length", "0")
        self.end_headers()

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512


server = Server(("127.0.0.1", 0), Echo)
print(server.server_address[1], flush=True)
server.serve_forever()
