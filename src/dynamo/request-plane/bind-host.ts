/** Which address a listener binds and which one it tells others. */
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'

/** `bind` goes to the socket, `advertise` into records: always an IP literal, never a wildcard. */
export interface BindHost {
  readonly bind: string
  readonly advertise: string
}

/** Addresses by interface name, as `os.networkInterfaces` gives them. */
export type Interfaces = Readonly<Record<string, readonly InterfaceAddress[] | undefined>>
export interface InterfaceAddress {
  readonly address: string
  readonly family: string
  readonly internal: boolean
}

/**
 * Reads a host option: an IP (brackets allowed), a wildcard, or an interface name.
 *
 * Left out, it is the first usable IPv4 that is not loopback, else IPv6, else loopback. A wildcard is bound as it is and advertises that address.
 * Errors: an `Error` that names the value and the interfaces there are.
 */
export function chooseBindHost(host: string | undefined, interfaces: Interfaces = networkInterfaces()): BindHost {
  const text = (host ?? '').trim().replace(/^\[(.*)\]$/, '$1')
  if (text === '') {
    const address = firstUsable(Object.values(interfaces).flatMap((list) => list ?? []))
    return { bind: address, advertise: address }
  }
  if (text === '0.0.0.0' || text === '::') {
    const all = Object.values(interfaces).flatMap((list) => list ?? [])
    return { bind: text, advertise: firstUsable(text === '::' ? all : all.filter(isIPv4)) }
  }
  if (isIP(text) !== 0) return { bind: text, advertise: text }
  const own = interfaces[text]
  if (own === undefined || own.length === 0) {
    throw new Error(`host ${JSON.stringify(text)} is neither an IP address nor an interface; interfaces: ${Object.keys(interfaces).join(', ')}`)
  }
  const address = (own.find((entry) => isIPv4(entry)) ?? own.find((entry) => !isLinkLocal(entry)) ?? own[0] as InterfaceAddress).address
  return { bind: address, advertise: address }
}

function firstUsable(addresses: readonly InterfaceAddress[]): string {
  const usable = addresses.filter((entry) => !entry.internal && !isLinkLocal(entry))
  return (usable.find(isIPv4) ?? usable[0])?.address ?? '127.0.0.1'
}

function isIPv4(entry: InterfaceAddress): boolean {
  return entry.family === 'IPv4'
}

function isLinkLocal(entry: InterfaceAddress): boolean {
  return entry.address.startsWith('169.254.') || entry.address.toLowerCase().startsWith('fe80:')
}
