// Answers each request with what Node's parser understood of it, in a field; prints its port.
const http = require('http');
const crypto = require('crypto');

const server = http.createServer({ keepAliveTimeout: 0, maxHeaderSize: 128 * 1024 }, (request, response) => {
  const hash = crypto.createHash('sha256');
  let length = 0;
  request.on('data', (piece) => {
    hash.update(piece);
    length += piece.length;
  });
  request.on('end', () => {
    const { method, url, headers } = request;
    response.setHeader('x-understood', [method, url, headers.host, length, hash.digest('hex')].join(' '));
    response.setHeader('content-length', 0);
    response.end();
  });
});
server.maxHeadersCount = 0;
server.on('connection', (socket) => socket.setNoDelay());
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
