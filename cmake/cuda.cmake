# Backend cuda: the sources under csrc/cuda, built for every target that this nvcc knows, where nvcc works at all.
#
# Input:  TRM_EDGE_CUDA (AUTO, ON, OFF; EMULATED: for a processor, by tests/emulated_gpu), TRM_EDGE_CUDA_TARGETS (compute
#         capabilities, e.g. "86,90a"; default: all).
# Effect: sources and TRM_HAVE_CUDA are added to trm_edge_objects; the runtime is linked statically, so that the result
#         also loads where no driver is. Without CUDA, TRM_WHY_NO_CUDA says to csrc/api/model.cc why.
set(TRM_EDGE_CUDA_TARGETS "" CACHE STRING "Compute capabilities to build for, e.g. \"86,90a\"; empty: all")
# Turing; A100; RTX 30, Orin, RTX 40; H100 and H200; B200; Thor (101 before CUDA 13); RTX 50.
set(all_cuda_targets 75 80 86 87 89 90a 100 101 110 120)
set(cuda_sources decoder device encoder fused fused_bf16 fused_fp16 fused_w8a16 plain session)

# Sets `result` to the targets, or to nothing, and then `why` to the reason.
function(find_working_nvcc result why)
  set(${result} "" PARENT_SCOPE)
  find_program(TRM_EDGE_NVCC nvcc HINTS $ENV{CUDACXX} /usr/local/cuda/bin)
  if(NOT TRM_EDGE_NVCC)
    set(${why} "no nvcc was found" PARENT_SCOPE)
    return()
  endif()
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/nvcc_check)
  file(WRITE ${folder}/check.cu "#include <cuda_bf16.h>\n#if CUDART_VERSION < 12000\n#error CUDA 12 or later is needed\n#endif\n__global__ void check(float* x) { *x = 1; }\nint main() { check<<<1, 1>>>(nullptr); }\n")
  execute_process(COMMAND ${TRM_EDGE_NVCC} -std=c++17 -ccbin ${CMAKE_CXX_COMPILER} -o ${folder}/check ${folder}/check.cu
    RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(failed)
    message(STATUS "nvcc does not compile: ${said}")
    set(${why} "${TRM_EDGE_NVCC} did not compile with ${CMAKE_CXX_COMPILER}" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${TRM_EDGE_NVCC} --list-gpu-code OUTPUT_VARIABLE known)
  set(targets "")
  foreach(target ${all_cuda_targets})
    string(REPLACE "a" "" plain ${target})
    if("${known}\n" MATCHES "sm_${plain}[\n\r]")
      list(APPEND targets ${target})
    endif()
  endforeach()
  execute_process(COMMAND ${TRM_EDGE_NVCC} --dryrun ${folder}/check.cu ERROR_VARIABLE said OUTPUT_QUIET)
  string(REGEX MATCH "TOP=([^\n\r]*)" found "${said}")
  find_library(TRM_EDGE_CUDART cudart_static NO_DEFAULT_PATH
    HINTS ${CMAKE_MATCH_1} PATH_SUFFIXES lib64 lib lib/x64 targets/${CMAKE_SYSTEM_PROCESSOR}-linux/lib)
  if(TRM_EDGE_CUDART)
    set(${result} "${targets}" PARENT_SCOPE)
  else()
    set(${why} "${TRM_EDGE_NVCC} works, but its cudart_static was not found near '${CMAKE_MATCH_1}'" PARENT_SCOPE)
  endif()
endfunction()

# What trm_cuda_missing will say.
function(leave_cuda_out why)
  string(REGEX REPLACE "[;\"\\]" "," why "${why}")  # which would end an argument or the text
  message(STATUS "Backend cuda: not built (${why})")
  set_property(SOURCE ${PROJECT_SOURCE_DIR}/csrc/api/model.cc APPEND PROPERTY
    COMPILE_DEFINITIONS "TRM_WHY_NO_CUDA=\"${why}\"")
endfunction()

if(library_type STREQUAL "STATIC" AND NOT TRM_EDGE_CUDA STREQUAL "OFF")
  if(NOT TRM_EDGE_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "TRM_EDGE_CUDA is ${TRM_EDGE_CUDA}, but a static library has no backend cuda; take "
      "BUILD_SHARED_LIBS=ON")
  endif()
  leave_cuda_out("a static library has none, build a shared one")
  return()
endif()
if(TRM_EDGE_CUDA STREQUAL "EMULATED")
  message(STATUS "Backend cuda: emulated (tests/emulated_gpu)")
  target_compile_definitions(trm_edge_objects PRIVATE TRM_HAVE_CUDA)
  return()
endif()
if(TRM_EDGE_CUDA STREQUAL "OFF")
  leave_cuda_out("TRM_EDGE_CUDA was OFF")
  return()
endif()
if(CMAKE_CROSSCOMPILING)
  if(TRM_EDGE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TRM_EDGE_CUDA is ON, but backend cuda is not cross-compiled; build on the device")
  endif()
  leave_cuda_out("it is not cross-compiled, build on the device")
  return()
endif()
find_working_nvcc(known_targets why_no_cuda)
if(NOT known_targets)
  if(TRM_EDGE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TRM_EDGE_CUDA is ON, but ${why_no_cuda}; put a CUDA toolkit's nvcc on the PATH, or use AUTO")
  endif()
  leave_cuda_out("${why_no_cuda}")
  return()
endif()
string(REPLACE "," ";" TRM_EDGE_CUDA_TARGETS "${TRM_EDGE_CUDA_TARGETS}")
if(NOT TRM_EDGE_CUDA_TARGETS)
  set(TRM_EDGE_CUDA_TARGETS ${known_targets})
endif()
message(STATUS "Backend cuda: ${TRM_EDGE_NVCC} for ${TRM_EDGE_CUDA_TARGETS}")

set(gpu_code "")
foreach(target ${TRM_EDGE_CUDA_TARGETS})
  list(APPEND gpu_code -gencode=arch=compute_${target},code=sm_${target})
endforeach()
set(newest 0)  # what comes after it runs its PTX: that of 90, as nothing else runs what 90a may hold
foreach(target ${TRM_EDGE_CUDA_TARGETS})
  string(REGEX MATCH "^[0-9]+" plain ${target})
  if(plain GREATER newest)
    set(newest ${plain})
  endif()
endforeach()
list(APPEND gpu_code -gencode=arch=compute_${newest},code=compute_${newest})

set(nvcc_flags -std=c++17 -O3 -ccbin ${CMAKE_CXX_COMPILER} -I${CMAKE_CURRENT_SOURCE_DIR}/csrc
  --threads=0 -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra)  # errors: in tests/cuda_report.py
execute_process(COMMAND ${TRM_EDGE_NVCC} --help OUTPUT_VARIABLE said)
if(said MATCHES "compress-mode" AND known_targets MATCHES "110")  # of CUDA 13; with 12.8 and 12.9 it needs a newer driver than they
  list(APPEND nvcc_flags -compress-mode=size)
endif()
file(GLOB cuda_headers CONFIGURE_DEPENDS csrc/cuda/*.h csrc/cuda/*.cuh csrc/core/*.h)
set(fused_bf16_flags -ftz=true)  # exponentials and roots without the instructions that scale denormal numbers
set(fused_fp16_flags ${fused_bf16_flags})
set(fused_w8a16_flags ${fused_bf16_flags})
foreach(name ${cuda_sources})
  set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda_${name}.o)
  set(source ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/${name}.cu)
  add_custom_command(OUTPUT ${object} DEPENDS ${source} ${cuda_headers} VERBATIM
    COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${TRM_EDGE_NVCC} ${nvcc_flags} ${${name}_flags} ${gpu_code} -c ${source} -o ${object}
    COMMENT "nvcc ${name}.cu")
  list(APPEND cuda_objects ${object})
endforeach()
add_custom_target(trm_edge_cuda DEPENDS ${cuda_objects})
add_dependencies(trm_edge_objects trm_edge_cuda)
target_compile_definitions(trm_edge_objects PRIVATE TRM_HAVE_CUDA)
target_link_libraries(trm_edge_objects INTERFACE ${cuda_objects} ${TRM_EDGE_CUDART} ${CMAKE_DL_LIBS} rt)
