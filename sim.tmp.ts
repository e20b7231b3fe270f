import {readFileSync} from 'node:fs'
import {loadSnapshot} from '/work/main/src/snapshot/load.ts'
import {buildWorld} from '/work/main/src/engine.ts'
import {simulateLine} from '/work/main/src/simulate.ts'
const a=process.argv.slice(2)
if (a[0]==='simulate') {
 const s=await loadSnapshot(a[a.indexOf('--snapshot')+1]); const w=buildWorld(s)
 const t=Date.now()
 for (const l of readFileSync(a[a.indexOf('--packets')+1],'utf8').split('\n').filter(Boolean)) console.log(JSON.stringify(simulateLine(w,l)))
 if (process.env.T) console.error('ms',Date.now()-t)
}
