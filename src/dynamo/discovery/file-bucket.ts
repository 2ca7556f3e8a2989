/**
 * One bucket directory of the file store, followed: inotify for speed, a poll of the directory's mtime for certainty.
 *
 * A touch of a file does not change the directory's mtime, so a quiet bucket costs one `stat` per poll however many records it has.
 */
import { watch as watchFolder } from 'node:fs'
import type { BigIntStats, FSWatcher } from 'node:fs'
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { makeFolder } from '../../make-folder.ts'
import type { Bucket, Clock, Log, TimerHandle } from '../../ports.ts'
import { decodeFileKey } from './file-key.ts'
import { maxRecordLength, type RecordView } from './record-view.ts'

/** Names waiting for a look before a full listing takes their place. */
const maxPendingNames = 256

export const isTemporaryName = (name: string): boolean => name.startsWith('.tmp_')

/** Identity of a file's content: peers replace by rename, so a touch alone keeps it. */
const signatureOf = (stats: BigIntStats): string => `${stats.ino}:${stats.birthtimeNs}:${stats.size}`

export interface FileText {
  readonly text: string
  readonly signature: string
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code

/** Reads one record file; null when it is gone, a directory, or (as a text that cannot be a record) too long. */
export async function readRecordFile(path: string, known?: string): Promise<FileText | 'unchanged' | null> {
  let file
  try {
    file = await open(path, 'r')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
  try {
    const stats = await file.stat({ bigint: true })
    if (!stats.isFile()) return null
    const signature = signatureOf(stats)
    if (signature === known) return 'unchanged'
    if (stats.size > BigInt(maxRecordLength)) return { text: `a file of ${stats.size} bytes`, signature }
    return { text: await file.readFile('utf8'), signature }
  } finally {
    await file.close()
  }
}

export interface FileBucketOptions {
  readonly bucket: Bucket
  readonly folder: string
  readonly view: RecordView
  readonly pollEveryMs: number
  readonly clock: Clock
  readonly log: Log
}

export class FileBucket {
  readonly view: RecordView
  readonly #options: FileBucketOptions
  readonly #signatures = new Map<string, string>()
  readonly #pendingNames = new Set<string>()
  #watcher: FSWatcher | null = null
  #timer: TimerHandle | null = null
  #folderMtimeNs = -1n
  #folderInode = -1n
  /** A listing was made whose folder mtime had not moved since the listing before: nothing can have slipped between. */
  #settled = false
  #listingWanted = true
  #working = false
  #closed = false
  #failure: string | null = null

  constructor(options: FileBucketOptions) {
    this.#options = options
    this.view = options.view
  }

  /** Starts following; the folder must exist. */
  start(): void {
    this.#watchFolder()
    this.#schedule()
    void this.#work()
  }

  close(): void {
    this.#closed = true
    this.#watcher?.close()
    this.#watcher = null
    this.#timer?.cancel()
  }

  /** Looks at the whole folder again now. */
  refresh(): void {
    this.#listingWanted = true
    void this.#work()
  }

  #watchFolder(): void {
    this.#watcher?.close()
    try {
      this.#watcher = watchFolder(this.#options.folder, { persistent: false }, (event, name) => {
        if (event === 'rename') this.#noticed(name)
      })
      this.#watcher.on('error', (error) => this.#stopWatcher(error))
    } catch (error) {
      this.#stopWatcher(error as Error)
    }
  }

  #stopWatcher(error: Error): void {
    this.#watcher?.close()
    this.#watcher = null
    if (!this.#closed) this.#options.log.debug({ bucket: this.#options.bucket, reason: error.message }, 'no file notifications; the bucket is polled')
  }

  #noticed(name: string | null): void {
    if (name !== null && isTemporaryName(name)) return
    if (name === null || this.#pendingNames.size >= maxPendingNames) this.#listingWanted = true
    else this.#pendingNames.add(name)
    void this.#work()
  }

  #schedule(): void {
    this.#timer = this.#options.clock.setTimer(this.#options.pollEveryMs, () => {
      void this.#poll().finally(() => {
        if (!this.#closed) this.#schedule()
      })
    })
  }

  async #poll(): Promise<void> {
    try {
      const { mtimeNs, ino } = await stat(this.#options.folder, { bigint: true })
      if (this.#folderInode !== -1n && ino !== this.#folderInode) this.#watchFolder()
      else if (mtimeNs === this.#folderMtimeNs && this.#settled) return
    } catch (error) {
      if (codeOf(error) === 'ENOENT') await makeFolder(this.#options.folder).catch(() => {})
    }
    this.#listingWanted = true
    await this.#work()
  }

  /** One at a time; what is noticed meanwhile is worked off before it returns. */
  async #work(): Promise<void> {
    if (this.#working) return
    this.#working = true
    try {
      while (!this.#closed && (this.#listingWanted || this.#pendingNames.size > 0)) {
        if (this.#listingWanted) await this.#listAll()
        else await this.#lookAt(this.#takeName())
      }
    } catch (error) {
      this.#listingWanted = true
      this.#complain(error as Error)
    } finally {
      this.#working = false
    }
  }

  #takeName(): string {
    const [name = ''] = this.#pendingNames
    this.#pendingNames.delete(name)
    return name
  }

  async #listAll(): Promise<void> {
    this.#listingWanted = false
    this.#pendingNames.clear()
    const { mtimeNs, ino } = await stat(this.#options.folder, { bigint: true })
    this.#settled = mtimeNs === this.#folderMtimeNs && ino === this.#folderInode
    this.#folderMtimeNs = mtimeNs
    this.#folderInode = ino
    const names = new Set((await readdir(this.#options.folder)).filter((name) => !isTemporaryName(name)))
    for (const name of this.#signatures.keys()) if (!names.has(name)) this.#gone(name)
    for (const name of names) {
      if (this.#closed) return
      await this.#lookAt(name)
    }
    this.view.markSynced()
    if (this.#settled) this.#failure = null
  }

  async #lookAt(name: string): Promise<void> {
    let found
    try {
      found = await readRecordFile(join(this.#options.folder, name), this.#signatures.get(name))
    } catch (error) {
      return this.#complain(error as Error)
    }
    if (this.#closed || found === 'unchanged') return
    if (found === null) return this.#gone(name)
    const key = decodeFileKey(name)
    if (key === null) return
    // A text that cannot be read may be half written: its signature is not kept, so that the next listing reads it again.
    if (this.view.put(key, found.text)) this.#signatures.set(name, found.signature)
    else {
      this.#signatures.set(name, 'unreadable')
      this.#settled = false
    }
  }

  #gone(name: string): void {
    this.#signatures.delete(name)
    const key = decodeFileKey(name)
    if (key !== null) this.view.delete(key)
  }

  #complain(error: Error): void {
    this.#settled = false
    if (this.#failure === error.message) return
    this.#failure = error.message
    this.#options.log.warn({ bucket: this.#options.bucket, reason: error.message }, 'cannot read the discovery directory; trying again')
  }
}
