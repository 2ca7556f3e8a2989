/** A small NATS server for tests: subjects with `*` at the end, queue groups, headers, no-responders; it can be stopped and started on its port. */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'

export interface NatsDoubleOptions {
  readonly maxPayload?: number
  /** Given: other credentials are refused. */
  readonly password?: string
}

interface Subscribed {
  readonly socket: Socket
  readonly subject: string
  readonly queue: string | null
  readonly sid: string
}

export class NatsDouble {
  readonly options: NatsDoubleOptions
  port = 0
  /** Subjects of messages, in order. */
  readonly published: string[] = []
  /** False: messages are taken and go nowhere, and nobody is told. */
  delivers = true
  /** Messages whose subject begins so go nowhere. */
  loses: string | null = null
  #server: Server | null = null
  readonly #sockets = new Set<Socket>()
  #subscriptions: Subscribed[] = []

  constructor(options: NatsDoubleOptions = {}) {
    this.options = options
  }

  get url(): string {
    return `nats://127.0.0.1:${this.port}`
  }

  get clients(): number {
    return this.#sockets.size
  }

  subscribersOf(subject: string): number {
    return this.#subscriptions.filter((entry) => matches(entry.subject, subject)).length
  }

  async start(): Promise<void> {
    const server = createServer((socket) => this.#greet(socket))
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.port, '127.0.0.1', () => resolve())
    })
    this.port = (server.address() as AddressInfo).port
    this.#server = server
  }

  async stop(): Promise<void> {
    const server = this.#server
    this.#server = null
    for (const socket of this.#sockets) socket.destroy()
    this.#subscriptions = []
    if (server !== null) await new Promise<void>((resolve) => server.close(() => resolve()))
  }

  #greet(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#sockets.delete(socket)
      this.#subscriptions = this.#subscriptions.filter((entry) => entry.socket !== socket)
    })
    const info = { server_id: 'double', version: '2.9.10', proto: 1, headers: true, max_payload: this.options.maxPayload ?? 1_048_576, auth_required: this.options.password !== undefined, port: this.port, host: '127.0.0.1', client_id: 1, go: '' }
    socket.write(`INFO ${JSON.stringify(info)}\r\n`)
    let rest: Buffer = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      for (;;) {
        const used = this.#command(socket, rest)
        if (used === 0) return
        rest = rest.subarray(used)
      }
    })
  }

  /** Bytes of the first whole command, or 0. */
  #command(socket: Socket, bytes: Buffer): number {
    const end = bytes.indexOf('\r\n')
    if (end < 0) return 0
    const [verb = '', ...args] = bytes.subarray(0, end).toString().split(' ')
    switch (verb.toUpperCase()) {
      case 'CONNECT': {
        const { pass } = JSON.parse(args.join(' ')) as { pass?: string }
        if (this.options.password !== undefined && pass !== this.options.password) socket.end("-ERR 'Authorization Violation'\r\n")
        return end + 2
      }
      case 'PING':
        socket.write('PONG\r\n')
        return end + 2
      case 'SUB': {
        const [subject = '', queue, sid] = args.length === 3 ? args : [args[0], null, args[1]]
        this.#subscriptions.push({ socket, subject: subject as string, queue: queue ?? null, sid: sid as string })
        return end + 2
      }
      case 'UNSUB':
        this.#subscriptions = this.#subscriptions.filter((entry) => entry.socket !== socket || entry.sid !== args[0])
        return end + 2
      case 'PUB': case 'HPUB': {
        const size = Number(args.at(-1))
        const total = end + 2 + size + 2
        if (bytes.length < total) return 0
        const isHeaded = verb.toUpperCase() === 'HPUB'
        const reply = args.length === (isHeaded ? 4 : 3) ? (args[1] as string) : null
        this.#route({ subject: args[0] as string, reply, headerBytes: isHeaded ? Number(args.at(-2)) : null, content: Buffer.from(bytes.subarray(end + 2, end + 2 + size)) })
        return total
      }
      default: return end + 2
    }
  }

  #route(message: { subject: string; reply: string | null; headerBytes: number | null; content: Buffer }): void {
    const { subject, reply, headerBytes, content } = message
    this.published.push(subject)
    if (!this.delivers || (this.loses !== null && subject.startsWith(this.loses))) return
    const groups = new Set<string>()
    let count = 0
    for (const entry of this.#subscriptions) {
      if (!matches(entry.subject, subject)) continue
      if (entry.queue !== null && groups.has(entry.queue)) continue
      if (entry.queue !== null) groups.add(entry.queue)
      count += 1
      const head = headerBytes === null ? `MSG ${subject} ${entry.sid}${reply === null ? '' : ` ${reply}`} ${content.length}` : `HMSG ${subject} ${entry.sid}${reply === null ? '' : ` ${reply}`} ${headerBytes} ${content.length}`
      entry.socket.write(Buffer.concat([Buffer.from(`${head}\r\n`), content, Buffer.from('\r\n')]))
    }
    const status = Buffer.from('NATS/1.0 503\r\n\r\n')
    if (count === 0 && reply !== null) this.#route({ subject: reply, reply: null, headerBytes: status.length, content: status })
  }
}

const matches = (pattern: string, subject: string): boolean =>
  pattern.endsWith('.*') ? subject.startsWith(pattern.slice(0, -1)) && !subject.slice(pattern.length - 1).includes('.') : pattern === subject
