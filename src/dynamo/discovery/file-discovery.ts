/**
 * Discovery over a shared directory, as Dynamo's file backend keeps it.
 *
 * A record is a file; its mtime is its heartbeat. Every process that uses a bucket touches its own files and removes those that nobody
 * touched for the TTL. Ours are written again when another process removed them (after a suspended machine, a long stall).
 */
import { randomBytes } from 'node:crypto'
import { link, readdir, rename, stat, unlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeFolder } from '../../make-folder.ts'
import type { Bucket, Clock, Discovery, DiscoveryEvent, JsonObject, Log, TimerHandle, Watch } from '../../ports.ts'
import { decodeFileKey, encodeFileKey } from './file-key.ts'
import { FileBucket, isTemporaryName, readRecordFile } from './file-bucket.ts'
import { randomInstanceId } from './memory-discovery.ts'
import { stringifyJson } from '../wire/json.ts'
import { RecordView, parseRecord } from './record-view.ts'
import { isUnderPrefix } from './store-key.ts'

export interface FileDiscoveryOptions {
  /** The store's root; Dynamo's `DYN_FILE_KV`. */
  readonly root: string
  /** Age of the last touch after which a record is dead. Default 10 s, as all peers have it. */
  readonly ttlMs?: number
  /** How often a followed bucket is looked at without a notification. Default 1 s. */
  readonly pollEveryMs?: number
  readonly instanceId?: bigint
  readonly clock: Clock
  readonly log: Log
}

/** Names longer than this are refused by common file systems. */
const maxNameBytes = 255

interface OwnRecord {
  readonly bucket: Bucket
  readonly key: string
  text: string
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code

async function unlinkIfThere(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error
  })
}

export class FileDiscovery implements Discovery {
  readonly kind = 'file'
  /** Never: a swept file is written again. */
  readonly lost = new Promise<Error>(() => {})
  readonly #root: string
  readonly #ttlMs: number
  readonly #touchEveryMs: number
  readonly #sweepEveryMs: number
  readonly #pollEveryMs: number
  readonly #clock: Clock
  readonly #log: Log
  readonly #id: bigint
  readonly #own = new Map<string, OwnRecord>()
  readonly #usedFolders = new Map<Bucket, string>()
  readonly #followed = new Map<Bucket, FileBucket>()
  readonly #watches = new Set<Watch>()
  /** Writes and removals of own records, one after the other, so that a heartbeat never revives a removed one. */
  #writing: Promise<void> = Promise.resolve()
  #timer: TimerHandle | null = null
  #lastTickMs = 0
  #lastSweepMs = 0
  #touching = false
  /** A tick came while a round of touching was under way. */
  #touchAgain = false
  #sweeping = false
  #started = false
  #closed = false

  constructor(options: FileDiscoveryOptions) {
    this.#root = options.root
    this.#ttlMs = options.ttlMs ?? 10_000
    // Peers touch every TTL/3. Twice as often leaves a stalled event loop nearly the whole TTL.
    this.#touchEveryMs = this.#ttlMs / 6
    this.#sweepEveryMs = this.#ttlMs / 3
    this.#pollEveryMs = options.pollEveryMs ?? 1_000
    this.#clock = options.clock
    this.#log = options.log
    this.#id = options.instanceId ?? randomInstanceId()
  }

  get instanceId(): bigint {
    if (!this.#started) throw new Error('discovery has no instance id before start() has resolved')
    return this.#id
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    try {
      await makeFolder(join(this.#root, 'v1'))
    } catch (error) {
      throw new Error(`cannot use the discovery directory ${this.#root}: ${(error as Error).message}; set DYN_FILE_KV to a directory that can be written`, { cause: error })
    }
    this.#started = true
    this.#lastTickMs = this.#lastSweepMs = this.#clock.nowMs()
    this.#schedule()
  }

  async put(bucket: Bucket, key: string, value: JsonObject): Promise<void> {
    if (!this.#started || this.#closed) throw new Error(`cannot put ${bucket}/${key}: discovery is ${this.#closed ? 'closed' : 'not started'}`)
    const nameLength = encodeFileKey(key).length
    if (nameLength > maxNameBytes) {
      throw new Error(`cannot put ${bucket}/${key}: its file name would have ${nameLength} bytes, at most ${maxNameBytes} are possible; use shorter names`)
    }
    const text = stringifyJson(value)
    await this.#inTurn(async () => {
      const path = await this.#pathOf(bucket, key)
      const owned = `${bucket}/${key}`
      const own = this.#own.get(owned)
      await this.#write(path, text, own !== undefined)
      this.#own.set(owned, { bucket, key, text })
    })
  }

  async remove(bucket: Bucket, key: string): Promise<void> {
    await this.#inTurn(async () => {
      if (!this.#own.delete(`${bucket}/${key}`)) return
      await unlinkIfThere(await this.#pathOf(bucket, key))
    })
  }

  async list(bucket: Bucket, prefix: string): Promise<ReadonlyMap<string, JsonObject>> {
    const folder = await this.#folderOf(bucket)
    const found = new Map<string, JsonObject>()
    for (const name of await readdir(folder)) {
      const key = isTemporaryName(name) ? null : decodeFileKey(name)
      if (key === null || !isUnderPrefix(key, prefix)) continue
      const file = await readRecordFile(join(folder, name))
      if (file === null || file === 'unchanged') continue
      try {
        found.set(key, parseRecord(file.text))
      } catch (error) {
        this.#log.warn({ bucket, key, reason: (error as Error).message }, 'discovery record cannot be read; it is skipped')
      }
    }
    return found
  }

  watch(bucket: Bucket, prefix: string, listener: (event: DiscoveryEvent) => void): Watch {
    let followed = this.#followed.get(bucket)
    if (followed === undefined) {
      followed = new FileBucket({
        bucket, folder: this.#folderPath(bucket), view: new RecordView(bucket, this.#log),
        pollEveryMs: this.#pollEveryMs, clock: this.#clock, log: this.#log,
      })
      this.#followed.set(bucket, followed)
      void this.#startFollowing(bucket, followed)
    }
    const view = followed.view
    const watch = view.follow(prefix, listener, () => {
      this.#watches.delete(watch)
      if (view.followerCount === 0) this.#stopFollowing(bucket, view)
    })
    this.#watches.add(watch)
    return watch
  }

  async close(deadlineMs: number): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#timer?.cancel()
    for (const watch of this.#watches) watch.close()
    const removals = this.#inTurn(async () => {
      for (const [owned, own] of this.#own) {
        this.#own.delete(owned)
        await unlinkIfThere(join(this.#folderPath(own.bucket), encodeFileKey(own.key))).catch((error: unknown) => {
          this.#log.warn({ bucket: own.bucket, key: own.key, reason: String(error) }, 'cannot remove a discovery record; it expires by itself')
        })
      }
    })
    let timer: TimerHandle | undefined
    const late = new Promise<void>((resolve) => {
      timer = this.#clock.setTimer(deadlineMs, resolve)
    })
    await Promise.race([removals, late])
    timer?.cancel()
  }

  #folderPath(bucket: Bucket): string {
    return join(this.#root, bucket)
  }

  async #folderOf(bucket: Bucket): Promise<string> {
    const folder = this.#folderPath(bucket)
    if (!this.#usedFolders.has(bucket)) {
      await makeFolder(folder)
      this.#usedFolders.set(bucket, folder)
    }
    return folder
  }

  async #pathOf(bucket: Bucket, key: string): Promise<string> {
    return join(await this.#folderOf(bucket), encodeFileKey(key))
  }

  async #startFollowing(bucket: Bucket, followed: FileBucket): Promise<void> {
    try {
      await this.#folderOf(bucket)
    } catch (error) {
      this.#log.error({ bucket, reason: (error as Error).message }, 'cannot create the discovery directory; trying again')
    }
    if (this.#followed.get(bucket) === followed && !this.#closed) followed.start()
  }

  #stopFollowing(bucket: Bucket, view: RecordView): void {
    const followed = this.#followed.get(bucket)
    if (followed?.view !== view) return
    this.#followed.delete(bucket)
    followed.close()
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#writing.then(work)
    this.#writing = done.catch(() => {})
    return done
  }

  /** Complete before it is visible: readers see the old record or the new one. */
  async #write(path: string, text: string, replaces: boolean): Promise<void> {
    const temporary = join(path, '..', `.tmp_${randomBytes(8).toString('hex')}`)
    await writeFile(temporary, text, { flag: 'wx' }).catch(async (error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error
      await makeFolder(join(path, '..'))
      await writeFile(temporary, text, { flag: 'wx' })
    })
    if (replaces) return rename(temporary, path)
    try {
      await link(temporary, path)
    } catch (error) {
      if (codeOf(error) === 'EEXIST') throw new Error(`cannot put ${path}: the record belongs to another process`, { cause: error })
      throw error
    } finally {
      await unlinkIfThere(temporary)
    }
  }

  #schedule(): void {
    this.#timer = this.#clock.setTimer(this.#touchEveryMs, () => {
      if (this.#closed) return
      this.#schedule()
      this.#tick()
    })
  }

  /** Touches at once whatever else is going on; sweeps when it is time and no sweep runs. */
  #tick(): void {
    const now = this.#clock.nowMs()
    const stalledMs = now - this.#lastTickMs - this.#touchEveryMs
    this.#lastTickMs = now
    this.#touch()
    // After a stall the whole machine may have slept: peers get the time to touch their files, too.
    if (stalledMs > this.#sweepEveryMs) this.#lastSweepMs = now
    if (this.#sweeping || now - this.#lastSweepMs < this.#sweepEveryMs - 1) return
    this.#lastSweepMs = now
    this.#sweeping = true
    void this.#sweepAll().finally(() => {
      this.#sweeping = false
    })
  }

  async #sweepAll(): Promise<void> {
    for (const [bucket, folder] of this.#usedFolders) await this.#sweep(bucket, folder)
  }

  /** One round at a time; a tick that comes meanwhile has its round right after, or a slow disk would halve the heartbeat. */
  #touch(): void {
    if (this.#touching) {
      this.#touchAgain = true
      return
    }
    this.#touching = true
    void this.#inTurn(() => this.#touchOwn()).finally(() => {
      this.#touching = false
      if (!this.#touchAgain || this.#closed) return
      this.#touchAgain = false
      this.#touch()
    })
  }

  async #touchOwn(): Promise<void> {
    const now = this.#clock.epochMs() / 1_000
    for (const own of this.#own.values()) {
      if (this.#closed) return
      const path = join(this.#folderPath(own.bucket), encodeFileKey(own.key))
      try {
        await utimes(path, now, now)
      } catch (error) {
        if (codeOf(error) === 'ENOENT') await this.#restore(own, path)
        else this.#log.warn({ bucket: own.bucket, key: own.key, reason: String(error) }, 'cannot touch our discovery record')
      }
    }
  }

  async #restore(own: OwnRecord, path: string): Promise<void> {
    try {
      await this.#write(path, own.text, false)
      this.#log.warn({ bucket: own.bucket, key: own.key }, 'our discovery record had been removed by another process; written again')
    } catch (error) {
      this.#log.warn({ bucket: own.bucket, key: own.key, reason: String(error) }, 'our discovery record is gone and cannot be written')
    }
  }

  async #sweep(bucket: Bucket, folder: string): Promise<void> {
    const oldest = this.#clock.epochMs() - this.#ttlMs
    try {
      for (const name of await readdir(folder)) {
        if (this.#closed) return
        const key = decodeFileKey(name)
        if (key !== null && this.#own.has(`${bucket}/${key}`)) continue
        await this.#sweepFile(join(folder, name), oldest)
      }
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.#log.warn({ bucket, reason: String(error) }, 'cannot remove expired discovery records')
    }
  }

  async #sweepFile(path: string, oldestMs: number): Promise<void> {
    try {
      const stats = await stat(path)
      if (!stats.isFile() || stats.mtimeMs >= oldestMs) return
      await unlinkIfThere(path)
      this.#log.debug({ path }, 'expired discovery record removed')
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
    }
  }
}
