import fs from 'fs'
const dir = process.argv[2], file = process.argv[3]
const tests=(await import(dir+'/tests/index.mjs')).default
const {determineTestResult}=await import(dir+'/test-engine/lib/results.mjs')
const r=JSON.parse(fs.readFileSync(file))
const raw={},dep={},tot={}
const bad=[]
for(const g of tests) for(const t of g.tests){const k=t.kind||'required';tot[k]=(tot[k]||0)+1
 if(r[t.id]===true) raw[k]=(raw[k]||0)+1; else if(k!=='check'||process.argv[4]) bad.push(k+' '+t.id+' '+JSON.stringify(r[t.id]))
 const d=determineTestResult(tests,t.id,r)[2]; if(d==='✅'||d==='Y') dep[k]=(dep[k]||0)+1}
console.log('total',tot,'raw',raw,'with dependencies',dep); console.log(bad.join('\n'))
