#!/usr/bin/env node
import {main} from '../dist/cli/main.js'

// A reader that closes early (`| head`) is no failure; without this Node ends with 13, an unsettled await.
process.stdout.on('error', (error) => {
  if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0)
  throw error
})
await main(process.argv.slice(2), import.meta.url)
