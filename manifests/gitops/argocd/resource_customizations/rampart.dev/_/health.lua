-- Health of the kinds of rampart.dev, after kstatus: the conditions Reconciling, Stalled and Ready decide, and
-- status.observedGeneration says of which generation of the spec they speak.
local function condition(kind)
  for _, it in ipairs(obj.status.conditions) do
    if it.type == kind then
      return it
    end
  end
  return {}
end

if obj.status == nil or obj.status.conditions == nil then
  return {status = "Progressing", message = "Waiting for Rampart"}
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "Waiting for Rampart to see the newest spec"}
end
if condition("Reconciling").status == "True" then
  return {status = "Progressing", message = condition("Ready").message}
end
if condition("Stalled").status == "True" then
  return {status = "Degraded", message = condition("Ready").message}
end
if obj.spec ~= nil and obj.spec.suspend == true or condition("Ready").reason == "Suspended" or condition("Ready").reason == "Idle" or condition("BlastRadiusExceeded").status == "True" then
  return {status = "Suspended", message = condition("Ready").message}
end
if condition("Ready").status == "True" then
  return {status = "Healthy", message = condition("Ready").message}
end
return {status = "Progressing", message = condition("Ready").message}
