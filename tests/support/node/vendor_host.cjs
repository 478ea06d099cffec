// Preloaded into a vendor's client: connections to VENDOR_HOST go to VENDOR_PORT of this machine.
// The client itself is unchanged, and sends the same requests as to the vendor.
const https = require('node:https')
const connect = https.Agent.prototype.createConnection

https.Agent.prototype.createConnection = function (options, ...rest) {
  const isVendor = options.host === process.env.VENDOR_HOST
  const here = { host: '127.0.0.1', port: Number(process.env.VENDOR_PORT) }
  return connect.call(this, isVendor ? { ...options, ...here } : options, ...rest)
}
