// Loaded into a process by NODE_OPTIONS=--require: on SIGUSR2 collects garbage and writes what is left to $WARMPATH_HEAP_FILE.
const { renameSync, writeFileSync, readdirSync } = require('node:fs')
const v8 = require('node:v8')
const vm = require('node:vm')
v8.setFlagsFromString('--expose_gc')
const collect = vm.runInNewContext('gc')
let count = 0
process.on('SIGUSR2', () => {
  const file = process.env.WARMPATH_HEAP_FILE
  for (let round = 0; round < 4; round += 1) collect()
  count += 1
  const descriptors = readdirSync('/proc/self/fd').length
  writeFileSync(`${file}.tmp`, JSON.stringify({ count, heapUsed: process.memoryUsage().heapUsed, descriptors }))
  renameSync(`${file}.tmp`, file)
})
