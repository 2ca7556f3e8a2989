/** Addresses of ZeroMQ sockets, checked before one is opened. */

/** What is wrong with an address; null: nothing. */
export function endpointProblem(endpoint: string): string | null {
  const invalid = (why: string): string => `invalid ZMQ endpoint \`${endpoint}\`: ${why}`
  const split = endpoint.indexOf('://')
  if (split < 0) return invalid('missing scheme')
  const scheme = endpoint.slice(0, split)
  const address = endpoint.slice(split + 3)
  if (address === '') return invalid('missing address')
  if (scheme === 'ipc' || scheme === 'inproc') return null
  if (scheme !== 'tcp') return invalid(`unsupported scheme \`${scheme}\``)
  const colon = address.lastIndexOf(':')
  if (colon < 0) return invalid('missing TCP port')
  const host = address.slice(0, colon)
  const port = address.slice(colon + 1)
  if (host === '') return invalid('missing TCP host')
  if (host.startsWith('[') ? !host.endsWith(']') : host.includes(':')) return invalid(host.startsWith('[') ? 'missing closing `]`' : 'missing TCP port')
  return /^\+?\d+$/.test(port) && Number(port) <= 65_535 ? null : invalid('invalid TCP port')
}
