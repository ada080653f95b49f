// What a check-in costs express with ioredis: a GET of the owner's keys and a SET of 418 bytes, in
// one process, with a constant answer. Called as `node express.js redis://..`; prints
// `ready http=<address>`.
'use strict';
const express = require('express');
const Redis = require('ioredis');

const redis = new Redis(process.argv[2], { enableAutoPipelining: true });
const kept = 'x'.repeat(418);
const reply = {
    registration: {
        success: true,
        status: 'OK',
        auto_update: false,
        owner: 'a'.repeat(64),
        alias: 'otter-00ab01',
        mesh_ids: [],
        udid: '5ccf7fee-1337-4000-8000-00000000ab01',
        timestamp: 1795478791,
    },
};
const app = express();
app.disable('x-powered-by');
app.use(express.json());
app.post('/device/register', async (request, response) => {
    const { owner, udid } = request.body.registration;
    await Promise.all([redis.get('ak:' + owner), redis.set('device:' + udid, kept)]);
    response.json(reply);
});
const server = app.listen(0, '127.0.0.1', () => {
    console.log('ready http=127.0.0.1:' + server.address().port);
});
server.keepAliveTimeout = 600000;
